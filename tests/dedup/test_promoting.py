import threading
from datetime import timedelta
from functools import partial

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.urls import reverse
from django.utils import timezone

from dedup import gates, jobs, promoting, releases, shadowing
from dedup.management.commands import follow_in_shadow
from dedup.models import Job, Release, Report, Score
from dedup.texts import text_of
from dedup.views.release_list import ON_A_PAGE
from support.models import AuditEntry
from tests.dedup.folders import write_release
from tests.dedup.test_gates import report
from tests.factories import QuestionFactory, ReleaseFactory, UserFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(tmp_path, settings):
    settings.DEDUP_ARTIFACTS = tmp_path
    return tmp_path


def added(artifacts, name):
    return releases.add(write_release(artifacts, name).name)


@pytest.fixture
def active(artifacts):
    return releases.activate(release=added(artifacts, "active"))


@pytest.fixture
def newer(artifacts):
    return added(artifacts, "newer")


def measured(release, active, **changes):
    figures = report(**changes) | {"fingerprint": release.fingerprint}
    return Report.objects.create(release=release, against=active, figures=figures)


def judged_by_both(release, active, count=gates.FEWEST_SHADOWED):
    """So many pairs that both releases called the same."""
    asked = QuestionFactory.create_batch(40)
    pairs = [(a, b) for n, a in enumerate(asked) for b in asked[n + 1 :]][:count]
    Score.objects.bulk_create(
        Score(
            older=one, newer=other, older_hash="o", newer_hash="n", release=by, logit=0.0,
            cosine=0.5, probability=n % 100 / 100,
        )
        for n, (one, other) in enumerate(pairs) for by in (active, release)
    )  # fmt: skip


@pytest.fixture
def ready(newer, active):
    """A release that has shown everything that is asked of it."""
    measured(newer, active)
    judged_by_both(newer, active)
    return newer


def test_the_first_release_of_all_needs_no_gates(artifacts, admin):
    first = added(artifacts, "first")

    assert promoting.promote(release=first, by=admin).is_active


def test_what_is_in_service_already_is_put_there_once(active, admin):
    promoting.promote(release=active, by=admin)

    assert AuditEntry.objects.filter(action="release_activated").count() == 1


def test_a_release_that_showed_everything_goes_into_service(ready, active, admin):
    assert {gate.state for gate in promoting.judged(ready)} == {gates.OPEN}

    promoting.promote(release=ready, by=admin)

    assert releases.active() == ready
    assert releases.active().previous == active
    assert releases.active().overruled == ""


def test_a_release_that_showed_nothing_stays_out(newer, active, admin):
    with pytest.raises(promoting.GatesShut) as refused:
        promoting.promote(release=newer, by=admin)

    names = {gate.name for gate in refused.value.gates}
    assert names == {"golden", "labels", "overall", "segments", "latency", "drift"}
    assert releases.active() == active
    entry = AuditEntry.objects.get(action="release_kept_out")
    assert (entry.by, entry.details["release"]) == (admin, "newer")
    assert set(entry.details["gates"]) == names


def test_a_report_beside_another_release_says_nothing(ready, active, admin, artifacts):
    releases.activate(release=added(artifacts, "third"))

    shut = {gate.name for gate in gates.shut(promoting.judged(ready))}

    assert {"overall", "segments", "latency", "drift"} <= shut


def test_whoever_overrules_a_gate_says_why(ready, active, admin):
    measured(ready, active, speed={"milliseconds_median": 900.0})

    with pytest.raises(promoting.GatesShut):
        promoting.promote(release=ready, by=admin, reason="  ")
    promoting.promote(release=ready, by=admin, reason="We have a faster machine now.")

    assert releases.active().overruled == "We have a faster machine now."
    entry = AuditEntry.objects.get(action="gates_overruled")
    assert (entry.by, entry.details["gates"]) == (admin, ["latency"])


def test_nobody_overrules_files_that_changed(ready, active, admin, artifacts):
    (artifacts / "newer" / "README.md").write_text("changed")

    with pytest.raises(promoting.GatesShut) as refused:
        promoting.promote(release=ready, by=admin, reason="It is urgent.")

    assert [gate.name for gate in refused.value.gates] == ["files"]
    assert releases.active() == active


def test_scores_of_texts_that_changed_meanwhile_are_not_compared(ready, active):
    Score.objects.filter(release=active).update(newer_hash="edited")

    shut = {gate.name for gate in gates.shut(promoting.judged(ready))}

    assert shut == {"drift"}


def at_once(*calls):
    """What each of the calls returned, or raised, all begun at the same moment."""
    begin, found = threading.Barrier(len(calls)), {}

    def run(number, call):
        begin.wait()
        try:
            found[number] = call()
        except Exception as error:
            found[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=one) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(calls))]


@pytest.mark.django_db(transaction=True)
def test_of_two_promotions_at_once_one_comes_after_the_other(artifacts, admin):
    first = releases.activate(release=added(artifacts, "first"))
    others = [added(artifacts, name) for name in ("one", "two")]
    for other in others:
        measured(other, first)
    other_admin = UserFactory()

    at_once(*(
        partial(promoting.promote, release=other, by=by, reason="now")
        for other, by in zip(others, (admin, other_admin), strict=True)
    ))  # fmt: skip

    assert Release.objects.filter(is_active=True).count() == 1
    switched = list(AuditEntry.objects.filter(action="release_activated").order_by("pk"))
    assert [entry.by for entry in switched[1:]] in ([admin, other_admin], [other_admin, admin])
    assert [e.details["release"] for e in switched][-1] == releases.active().name
    assert releases.active().previous in others


@pytest.mark.django_db(transaction=True)
def test_the_second_of_two_promotions_is_judged_against_the_first(artifacts, admin):
    first = releases.activate(release=added(artifacts, "first"))
    others = [added(artifacts, name) for name in ("one", "two")]
    judged_by_both(others[0], first)
    judged_by_both(others[1], first)
    for other in others:
        measured(other, first)

    found = at_once(*(partial(promoting.promote, release=other, by=admin) for other in others))

    (won,) = (one for one in found if isinstance(one, Release))
    (lost,) = (one for one in found if isinstance(one, promoting.GatesShut))
    assert releases.active() == won
    assert {"overall", "segments"} <= {gate.name for gate in lost.gates}
    assert AuditEntry.objects.filter(action="release_kept_out").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_go_back_at_once_go_back_one_step(artifacts, admin):
    _, two, three = (
        releases.activate(release=added(artifacts, name)) for name in ("one", "two", "three")
    )

    found = at_once(*[partial(releases.roll_back, by=admin, leaving=three.pk)] * 2)

    assert releases.active() == two
    assert [type(said) for said in found].count(releases.NoWayBack) == 1


@pytest.mark.django_db(transaction=True)
def test_a_promotion_does_not_hold_up_a_check_that_writes_scores(ready, active, admin):
    older, newer = QuestionFactory(), QuestionFactory()

    def write():
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        return Score.objects.create(
            older=older, newer=newer, release=active, older_hash="", newer_hash="", logit=0.0,
            cosine=0.5, probability=0.5,
        )  # fmt: skip

    with transaction.atomic():
        releases.lock()
        promoting.promote(release=ready, by=admin)
        (said,) = at_once(write)

    assert isinstance(said, Score)


def test_one_release_at_a_time_is_in_the_shadow(newer, active, artifacts, admin):
    third = added(artifacts, "third")
    releases.shadow(release=newer, by=admin)
    releases.shadow(release=third, by=admin)

    assert releases.in_shadow() == third
    with pytest.raises(IntegrityError), transaction.atomic():
        Release.objects.filter(pk=newer.pk).update(shadow_since=timezone.now())


def test_what_is_in_service_is_not_its_own_shadow(active, admin):
    with pytest.raises(releases.ActiveAlready):
        releases.shadow(release=active, by=admin)
    with pytest.raises(IntegrityError), transaction.atomic():
        Release.objects.filter(pk=active.pk).update(shadow_since=timezone.now())


def test_a_release_leaves_the_shadow_as_it_goes_into_service(ready, admin):
    releases.shadow(release=ready, by=admin)

    promoting.promote(release=ready, by=admin)

    assert releases.in_shadow() is None


class Doubter(FakeScorer):
    """Finds everything half as likely."""

    def judge(self, pairs, cosines):
        said = super().judge(pairs, cosines)
        return [type(one)(one.logit, one.cosine, one.probability / 2) for one in said]


@pytest.fixture
def shadow(newer, active, admin, monkeypatch):
    """A release in the shadow, with a fake in place of its networks."""
    releases.shadow(release=newer, by=admin)
    fake = Doubter()
    fake.fingerprint = newer.fingerprint
    monkeypatch.setattr(shadowing, "open_release", lambda *_, **__: fake)
    return fake


def scored(active, count=3, **fields):
    made = []
    for n in range(count):
        older, newer = (QuestionFactory(title=f"Lamp {n} is {what}") for what in ("dark", "off"))
        texts = {"older_hash": text_of(older).hash, "newer_hash": text_of(newer).hash}
        made.append(
            Score.objects.create(
                older=older, newer=newer, release=active, logit=1.0, cosine=0.7,
                probability=0.8, **{**texts, **fields},
            )
        )  # fmt: skip
    return made


def test_the_shadow_judges_what_the_active_release_judged_and_flags_nothing(shadow, newer, active):
    rows = scored(active)

    assert shadowing.follow(now=timezone.now()) == 3

    said = Score.objects.filter(release=newer)
    assert {(one.older_id, one.newer_id) for one in said} == {
        (row.older_id, row.newer_id) for row in rows
    }
    assert {one.cosine for one in said} == {0.7}
    assert not rows[0].older.flags_as_older.exists()
    assert shadowing.follow(now=timezone.now()) == 0


def test_the_shadow_judges_so_many_an_hour(shadow, newer, active, settings):
    settings.DEDUP_SHADOW_PER_HOUR = 2
    scored(active)
    now = timezone.now()

    assert shadowing.follow(now=now) == 2
    assert shadowing.follow(now=now) == 0
    assert shadowing.follow(now=now + timedelta(minutes=61)) == 1


def test_the_shadow_ends_in_the_midst_where_somebody_ends_it(shadow, newer, active, admin):
    scored(active)
    shadow.judge = lambda pairs, cosines: (
        releases.end_shadow(release=newer, by=admin) or Doubter.judge(shadow, pairs, cosines)
    )
    shadowing.AT_ONCE, before = 1, shadowing.AT_ONCE
    try:
        assert shadowing.follow(now=timezone.now()) == 1
    finally:
        shadowing.AT_ONCE = before


def test_a_shadow_that_says_what_is_no_number_writes_nothing(shadow, newer, active):
    scored(active)
    shadow.judge = lambda pairs, cosines: [
        type(one)(one.logit, one.cosine, float("nan"))
        for one in FakeScorer.judge(shadow, pairs, cosines)
    ]

    with pytest.raises(FloatingPointError):
        shadowing.follow(now=timezone.now())

    assert not Score.objects.filter(release=newer).exists()


def test_texts_that_changed_since_do_not_hide_older_pairs_from_the_shadow(shadow, newer, active):
    old, *stale = scored(active, 5)
    Score.objects.filter(pk__in=[row.pk for row in stale]).update(older_hash="of another text")

    assert shadowing.follow(now=timezone.now()) == 1
    assert Score.objects.get(release=newer).older_id == old.older_id


def test_what_changes_while_the_shadow_reads_it_is_not_kept(shadow, newer, active):
    row = scored(active, 1)[0]

    def read(pairs, cosines):
        type(row.older).objects.filter(pk=row.older_id).update(title="Erased")
        return Doubter.judge(shadow, pairs, cosines)

    shadow.judge = read
    shadowing.follow(now=timezone.now())

    assert not Score.objects.filter(release=newer).exists()


def test_the_shadow_leaves_out_texts_that_changed_since(shadow, active):
    row = scored(active, 1)[0]
    type(row.older).objects.filter(pk=row.older_id).update(title="Another title")

    assert shadowing.follow(now=timezone.now()) == 0


def test_the_shadow_does_not_go_back_behind_its_beginning(shadow, active):
    scored(active, scored_at=timezone.now() - timedelta(days=1))

    assert shadowing.follow(now=timezone.now()) == 0


def test_a_shadow_with_another_bi_encoder_measures_its_own_cosines(shadow, newer, active):
    Release.objects.filter(pk=newer.pk).update(embedding_fingerprint="other")
    scored(active, 1)

    shadowing.follow(now=timezone.now())

    assert Score.objects.get(release=newer).cosine != 0.7


def test_the_command_lets_others_go_first_and_says_how_much_was_judged(
    shadow, active, monkeypatch, capsys
):
    niced = []
    monkeypatch.setattr(follow_in_shadow.os, "nice", niced.append)
    monkeypatch.setattr(follow_in_shadow.signal, "signal", lambda *_: None)
    monkeypatch.setattr(follow_in_shadow.jobs, "bound_memory", lambda: None)
    scored(active)

    call_command("follow_in_shadow")

    assert niced == [follow_in_shadow.NICENESS]
    assert "3 pairs judged" in capsys.readouterr().out


def test_without_a_shadow_nothing_is_judged(active):
    scored(active)

    assert shadowing.follow(now=timezone.now()) == 0


def test_the_list_says_which_is_in_service_and_which_in_the_shadow(client, admin, ready, active):
    releases.shadow(release=ready, by=admin)
    client.force_login(admin)

    shown = client.get(reverse("releases")).content.decode()

    assert "In service" in shown
    assert "In the shadow" in shown


def test_of_many_releases_the_list_has_pages_and_the_first_begins_with_the_one_in_service(
    client, admin, active, django_assert_max_num_queries
):
    ReleaseFactory.create_batch(ON_A_PAGE)
    client.force_login(admin)

    with django_assert_max_num_queries(16):
        first = client.get(reverse("releases")).text
    second = client.get(reverse("releases"), {"page": 2}).text

    assert "Page 1 of 2" in first
    assert first.count("In service since") == 1
    assert "In service since" not in second
    assert second.count("release-row") == 1
    assert "No release is in service" not in second


def test_the_page_of_the_gates_puts_a_release_into_service(client, admin, ready):
    client.force_login(admin)
    assert "disabled" not in client.get(reverse("promote", args=[ready.pk])).content.decode()

    answer = client.post(reverse("promote", args=[ready.pk]))

    assert answer.status_code == 302
    assert releases.active() == ready


def test_a_release_that_is_kept_out_is_a_409_that_says_why(client, admin, newer, active):
    client.force_login(admin)

    answer = client.post(reverse("promote", args=[newer.pk]), {"reason": "please"})

    assert answer.status_code == 409
    assert "Evaluate it" in answer.content.decode()
    assert releases.active() == active


def test_measured_on_too_few_pairs_the_page_says_what_is_missing_not_to_measure(
    client, admin, newer, active
):
    few = {"figures": {}, "leads": {}, "pairs": 12, "duplicates": 4}
    measured(newer, active, own=report()["own"] | few)
    client.force_login(admin)

    page = client.get(reverse("promote", args=[newer.pk])).text

    assert "Missing: 38 pairs, 6 duplicates, 2 pairs that are none." in page
    assert "Evaluate it" not in page
    assert "Evaluate again" in page
    assert "Measured beside" in page


def test_while_it_is_measured_the_page_of_the_gates_leads_to_the_job(client, admin, newer, active):
    job = jobs.start(kind=Job.Kind.EVALUATE, params={"release": newer.pk}, by=admin)
    client.force_login(admin)

    page = client.get(reverse("promote", args=[newer.pk])).text

    assert reverse("job", args=[job.pk]) in page
    assert "It waits to be measured." in page
    assert "Evaluate now" not in page


def test_one_click_brings_the_former_release_back(client, admin, ready, active):
    promoting.promote(release=ready, by=admin)
    client.force_login(admin)
    assert active.name in client.get(reverse("roll_back")).content.decode()

    client.post(reverse("roll_back"))

    assert releases.active() == active


def test_where_nothing_was_replaced_there_is_no_way_back(client, admin, active):
    client.force_login(admin)

    assert client.post(reverse("roll_back")).status_code == 409
    assert releases.active() == active


def test_the_shadow_begins_and_ends_by_a_button(client, admin, newer, active):
    client.force_login(admin)
    client.post(reverse("shadow", args=[newer.pk]))
    assert releases.in_shadow() == newer

    client.post(reverse("shadow", args=[newer.pk]), {"end": "1"})

    assert releases.in_shadow() is None
