from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dedup import foreseeing, moving
from dedup.models import Flag, Release, Score, ThresholdChange
from dedup.moving import Which
from dedup.texts import text_of
from support import outbox
from support.models import OutboxEntry
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db
ADDRESS = "/manage/thresholds/"


@pytest.fixture(autouse=True)
def _quiet(bells):
    pass


@pytest.fixture
def release():
    return ReleaseFactory(is_active=True)


@pytest.fixture
def page(client, admin):
    client.force_login(admin)

    def get(**query):
        return client.get(ADDRESS, query)

    return get


def checked(**fields):
    question = QuestionFactory(**fields)
    outbox.put(question)
    OutboxEntry.objects.update(settled_at=timezone.now(), checked_by="f" * 64)
    return question


def judged(release, agent, probability, *, is_same):
    """A flag on which somebody decided, with what the release says of it."""
    now = timezone.now()
    older, newer = checked(asked_at=now - timedelta(days=2)), checked()
    hashes = {"older_hash": text_of(older).hash, "newer_hash": text_of(newer).hash}
    said = {"older": older, "newer": newer, "probability": probability, "release": release}
    Score.objects.create(**said, **hashes, logit=1.0, cosine=0.9)
    verdict = Flag.Status.CONFIRMED if is_same else Flag.Status.DISMISSED
    flag = FlagFactory(**said, **hashes, status=verdict, decided_at=now)
    flag.reviews.create(
        verdict=verdict, by=agent, probability=probability, release=release.name, **hashes
    )
    return flag


def test_without_a_release_the_page_says_so(page):
    answer = page()

    assert answer.status_code == 200
    assert "No release is in service" in answer.text


@pytest.mark.parametrize("which", ["flag", "sure", "suggest"])
def test_each_threshold_is_shown_where_it_stands(page, release, which):
    value = moving.value_of(release, which)

    answer = page(which=which)

    assert answer.context["at"] == value
    assert "What comes of" in answer.text
    assert "Move to" not in answer.text


def test_without_any_verdict_it_says_none_and_of_few_that_they_are_few(page, release, agent):
    assert "no verdicts yet" in page().text
    assert "too few" not in page().text

    judged(release, agent, 0.97, is_same=True)
    foreseeing.cache.clear()

    assert "too few verdicts to say" in page().text


def test_a_slid_threshold_can_be_moved_and_says_what_would_happen(page, release):
    FlagFactory(release=release, probability=0.85)

    answer = page(which="flag", at="90")

    assert "1 open pair leaves the queue at once." in answer.text
    assert "Move to 90.0 %" in answer.text


def test_without_a_script_the_input_that_was_changed_counts(page, release):
    assert page(at="90.0", number="80.0", shown="80.0").context["at"] == 0.9
    assert page(at="80.0", number="70,0", shown="80.0").context["at"] == 0.7


@pytest.mark.parametrize("nonsense", ["", "x", "nan", "inf", "-1", "0.7", "101", "0"])
def test_nonsense_shows_where_it_stands(page, release, nonsense):
    assert page(at=nonsense, wanted=nonsense, confidence=nonsense).context["at"] == 0.8


def test_htmx_gets_the_consequences_alone(client, admin, release):
    client.force_login(admin)

    answer = client.get(ADDRESS, {"at": "70"}, headers={"HX-Request": "true"})

    assert answer.text.strip().startswith('<div id="consequences"')
    assert "<html" not in answer.text


def test_moving_it_writes_who_and_why(client, admin, release):
    client.force_login(admin)

    given = {"release": release.pk, "which": "flag", "before": "0.8", "after": "0.9"}
    answer = client.post(f"{ADDRESS}move/", given | {"reason": "fewer"}, follow=True)

    change = ThresholdChange.objects.get()
    assert (change.by, change.after, change.reason) == (admin, 0.9, "fewer")
    assert "Moved to 90.0 %." in answer.text
    assert "fewer" in answer.text


def test_who_is_late_sees_where_it_stands_and_keeps_their_words(client, admin, release):
    client.force_login(admin)
    moving.move(release=release, which=Which.FLAG, before=0.8, after=0.85, by=admin)

    given = {"release": release.pk, "which": "flag", "before": "0.8", "after": "0.9"}
    answer = client.post(f"{ADDRESS}move/", given | {"reason": "fewer"})

    assert answer.status_code == 409
    assert "Meanwhile somebody moved it to 85.0 %" in answer.text
    assert 'value="fewer"' in answer.text
    assert 'name="before" value="0.85"' in answer.text


@pytest.mark.parametrize("after", ["", "nan", "2", "x", "0.99"])
def test_what_cannot_be_is_refused_with_a_word(client, admin, release, after):
    client.force_login(admin)

    given = {"release": release.pk, "which": "flag", "before": "0.8", "after": after}
    answer = client.post(f"{ADDRESS}move/", given)

    assert answer.status_code == 409
    assert "Nothing has been moved." in answer.text


def test_the_newest_move_is_taken_back_from_the_page(client, admin, release, page):
    change = moving.move(release=release, which=Which.FLAG, before=0.8, after=0.85, by=admin)
    back = f"{ADDRESS}{change.pk}/take-back/"
    assert back in page().text

    answer = client.post(back, follow=True)

    release.refresh_from_db()
    assert release.threshold == 0.8
    assert "Moved back to 80.0 %" in answer.text
    assert back not in answer.text


def test_what_is_said_of_a_move_is_rounded_as_on_the_page(client, admin, release):
    Release.objects.filter(pk=release.pk).update(threshold=0.1646, suggestion_floor=0.02)
    release.refresh_from_db()
    change = moving.move(release=release, which=Which.FLAG, before=0.1646, after=0.2, by=admin)
    client.force_login(admin)

    answer = client.post(f"{ADDRESS}{change.pk}/take-back/", follow=True)

    assert "Moved back to 16.5 %" in answer.text


def test_a_move_that_another_followed_is_not_taken_back(client, admin, release, page):
    first = moving.move(release=release, which=Which.FLAG, before=0.8, after=0.85, by=admin)
    moving.move(release=release, which=Which.FLAG, before=0.85, after=0.9, by=admin)
    assert f"{first.pk}/take-back/" not in page().text

    client.force_login(admin)
    answer = client.post(f"{ADDRESS}{first.pk}/take-back/")

    assert answer.status_code == 409
    assert "take the later move back first" in answer.text


def test_verdicts_give_precision_and_wrong_flags(page, release, agent):
    for n in range(30):
        judged(release, agent, 0.97, is_same=n % 3 > 0)

    answer = page(at="90")

    found = answer.context["found"]
    assert found.now.quality.precision.value == pytest.approx(2 / 3)
    value, low, high = found.now.wrong
    assert value == pytest.approx(1_000 * 30 / 60 / 3, rel=0.01)
    assert low < value < high
    assert found.then.total == 30


def test_a_promise_is_made_from_verdicts_or_said_to_be_out_of_reach(page, release, agent):
    assert "cannot be promised" in page(wanted="0.8").text
    for n in range(40):
        judged(release, agent, 0.97 if n < 30 else 0.5, is_same=n < 30)
    foreseeing.cache.clear()

    answer = page(wanted="0.8", confidence="0.9")

    assert answer.context["promise"].threshold == 0.97
    assert "at=97.0" in answer.text


def test_the_page_takes_the_same_number_of_queries_whatever_there_is(
    page, release, agent, django_assert_max_num_queries
):
    for n in range(12):
        judged(release, agent, 0.9, is_same=n % 2 == 0)
    moving.move(release=release, which=Which.FLAG, before=0.8, after=0.85, by=agent)
    page()
    with django_assert_max_num_queries(22):
        page(at="90")


@pytest.mark.parametrize("role", ["customer", "agent"])
def test_only_admins_see_and_move(client, request, release, role):
    client.force_login(request.getfixturevalue(role))

    assert client.get(ADDRESS).status_code == 403
    assert client.post(f"{ADDRESS}move/", {"release": release.pk}).status_code == 403


@pytest.mark.parametrize(
    "name",
    ["thresholds", "releases", "release", "promote", "audit_week",
     "admin:dedup_release_changelist"],
)  # fmt: skip
def test_every_page_says_a_threshold_in_the_same_form(client, admin, name):
    """In percent with one decimal; programs have the share itself."""
    active = ReleaseFactory(is_active=True, threshold=0.1646, suggestion_floor=0.02)
    other = ReleaseFactory()
    client.force_login(admin)
    path = {"release": [active.pk], "promote": [other.pk]}.get(name, [])

    page = client.get(reverse(name, args=path)).text

    assert "16.5 %" in page
    assert "0.165" not in page
    assert "16 %" not in page
    api = client.get(f"/api/v1/releases/{active.pk}/").json()
    assert api["threshold"] == 0.1646
