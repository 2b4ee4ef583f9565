import threading
import time
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from dedup import moving, replaying
from dedup.models import Flag, Score, ThresholdChange
from dedup.moving import Which
from support import merging, outbox
from support.models import AuditEntry, OutboxEntry
from tests.factories import FlagFactory, ProductFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db
NOW = timezone.now()


@pytest.fixture
def release():
    return ReleaseFactory(is_active=True)


@pytest.fixture(autouse=True)
def _quiet(bells):
    pass


def scored(release, probability, *, newer=None, older=None):
    newer = newer or QuestionFactory()
    return Score.objects.create(
        older=older or QuestionFactory(), newer=newer, older_hash="o" * 64, newer_hash="n" * 64,
        release=release, logit=1.0, cosine=0.9, probability=probability,
    )  # fmt: skip


def moved(release, admin, after, which=Which.FLAG, before=None, **given):
    release.refresh_from_db()
    before = moving.value_of(release, which) if before is None else before
    return moving.move(release=release, which=which, before=before, after=after, by=admin, **given)


def status(flag):
    flag.refresh_from_db()
    return flag.status


def test_a_moved_threshold_stands_there_and_says_who_moved_it(release, admin):
    change = moved(release, admin, 0.9, reason=" too many wrong ones ", now=NOW)

    release.refresh_from_db()
    assert release.threshold == 0.9
    assert (change.before, change.after, change.by, change.at) == (0.8, 0.9, admin, NOW)
    assert change.reason == "too many wrong ones"
    entry = AuditEntry.objects.get(action="threshold_moved")
    assert entry.details["after"] == 0.9
    assert "too many" not in str(entry.details)


def test_open_flags_that_fall_below_are_withdrawn_at_once(release, admin):
    low, high = FlagFactory(release=release, probability=0.85), FlagFactory(release=release)

    change = moved(release, admin, 0.9)

    assert (status(low), status(high)) == (Flag.Status.WITHDRAWN, Flag.Status.OPEN)
    assert change.withdrawn == 1


@pytest.mark.parametrize("hand", ["held", "put off", "unsure", "disputed"])
def test_what_a_person_has_a_hand_on_stays_open(release, admin, hand):
    fields = {
        "held": {"claimed_by": admin, "claimed_until": NOW + timedelta(minutes=5)},
        "put off": {"snoozed_until": NOW + timedelta(days=1)},
        "unsure": {"unsure_by": admin, "unsure_at": NOW},
        "disputed": {"disputed_by": admin, "disputed_at": NOW},
    }[hand]
    flag = FlagFactory(release=release, probability=0.85, **fields)

    foreseen = moving.effects(release=release, which=Which.FLAG, after=0.9, now=NOW)
    change = moved(release, admin, 0.9, now=NOW)

    assert status(flag) == Flag.Status.OPEN
    assert (foreseen.withdrawn, foreseen.left, change.withdrawn) == (0, 1, 0)


def test_a_claim_that_ran_out_holds_nothing(release, admin):
    ended = {"claimed_by": admin, "claimed_until": NOW - timedelta(minutes=1)}
    flag = FlagFactory(release=release, probability=0.85, **ended)

    moved(release, admin, 0.9, now=NOW)

    assert status(flag) == Flag.Status.WITHDRAWN


@pytest.mark.parametrize("said", ["confirmed", "dismissed", "related"])
def test_what_people_decided_is_never_touched(release, admin, said):
    flag = FlagFactory(release=release, probability=0.85, status=said)
    scored(release, 0.85, older=flag.older, newer=flag.newer)

    moved(release, admin, 0.9)
    change = moved(release, admin, 0.7)

    assert status(flag) == said
    assert change.put_back == 0


def test_pairs_drawn_from_below_are_still_asked_about(release, admin):
    drawn = FlagFactory(release=release, probability=0.3, lane="sampled", asked_share=0.1)

    moved(release, admin, 0.9)

    assert status(drawn) == Flag.Status.OPEN


def test_flags_of_another_release_stay(release, admin):
    other = FlagFactory(probability=0.1)

    moved(release, admin, 0.9)

    assert status(other) == Flag.Status.OPEN


def test_pairs_that_rise_above_are_checked_again_in_the_background(release, admin):
    above, below = scored(release, 0.75), scored(release, 0.65)
    waiting = scored(release, 0.9)
    FlagFactory(release=release, older=waiting.newer, newer=waiting.older)  # asked the other way

    foreseen = moving.effects(release=release, which=Which.FLAG, after=0.7, now=NOW)
    change = moved(release, admin, 0.7)

    entry = OutboxEntry.objects.get(settled_at=None)
    assert (entry.question_id, entry.is_background) == (above.newer_id, True)
    assert not OutboxEntry.objects.filter(question=below.newer).exists()
    assert (foreseen.put_back, change.put_back) == (1, 1)


def test_flags_that_a_move_withdrew_come_back_when_it_is_taken_back(release, admin):
    pair = scored(release, 0.85)
    FlagFactory(release=release, probability=0.85, older=pair.older, newer=pair.newer)
    change = moved(release, admin, 0.9)

    moving.take_back(change=change, by=admin, now=NOW)

    release.refresh_from_db()
    change.refresh_from_db()
    assert release.threshold == 0.8
    assert (change.undone_by, change.undone_at) == (admin, NOW)
    assert list(outbox_waiting()) == [pair.newer_id]
    assert AuditEntry.objects.get(action="threshold_moved_back").details["put_back"] == 1


def outbox_waiting():
    return OutboxEntry.objects.waiting().values_list("question_id", flat=True)


def test_a_release_that_is_not_in_service_moves_no_flags(admin):
    release = ReleaseFactory()
    flag = FlagFactory(release=release, probability=0.85)
    scored(release, 0.75)

    moved(release, admin, 0.9)
    moved(release, admin, 0.7)

    assert status(flag) == Flag.Status.OPEN
    assert not OutboxEntry.objects.exists()


@pytest.mark.parametrize(
    ("which", "column", "after"),
    [(Which.SURE, "sure_threshold", 0.97), (Which.SUGGEST, "suggestion_floor", 0.4)],
)
def test_the_other_thresholds_move_no_flags(release, admin, which, column, after):
    flag = FlagFactory(release=release, probability=0.3)

    moved(release, admin, after, which)

    release.refresh_from_db()
    assert getattr(release, column) == after
    assert status(flag) == Flag.Status.OPEN


@pytest.mark.parametrize(
    ("which", "after"),
    [(Which.FLAG, 0.96), (Which.FLAG, 0.4), (Which.SURE, 0.7), (Which.SUGGEST, 0.9)],
)  # fmt: skip
def test_thresholds_keep_their_order(release, admin, which, after):
    with pytest.raises(moving.OutOfOrder):
        moved(release, admin, after, which)

    assert not ThresholdChange.objects.exists()


@pytest.mark.parametrize("after", [0.0, 0.005, 1.5, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_is_no_share_is_refused(release, admin, after):
    with pytest.raises(moving.ThresholdRefused):
        moved(release, admin, after, Which.SURE)


def test_who_saw_an_older_value_is_told_where_it_stands(release, admin):
    moved(release, admin, 0.9)

    with pytest.raises(moving.ThresholdMoved) as refused:
        moved(release, admin, 0.7, before=0.8)

    assert refused.value.now_at == 0.9
    release.refresh_from_db()
    assert release.threshold == 0.9


def test_moving_nowhere_is_no_move(release, admin):
    with pytest.raises(moving.ThresholdRefused):
        moved(release, admin, 0.8)


def test_only_the_newest_move_can_be_taken_back(release, admin):
    first, second = moved(release, admin, 0.9), moved(release, admin, 0.85)
    sure = moved(release, admin, 0.97, Which.SURE)

    assert moving.to_take_back(release) == {second.pk, sure.pk}
    with pytest.raises(moving.LaterChange):
        moving.take_back(change=first, by=admin)
    moving.take_back(change=second, by=admin)
    moving.take_back(change=first, by=admin)

    release.refresh_from_db()
    assert release.threshold == 0.8


def test_a_move_is_taken_back_once(release, admin):
    change = moved(release, admin, 0.9)
    moving.take_back(change=change, by=admin)

    with pytest.raises(moving.AlreadyTakenBack):
        moving.take_back(change=change, by=admin)


def test_a_threshold_that_stands_elsewhere_is_not_taken_back(release, admin):
    change = moved(release, admin, 0.9)
    release.threshold = 0.88
    release.save()

    with pytest.raises(moving.ThresholdMoved):
        moving.take_back(change=change, by=admin)


def test_a_move_is_not_taken_back_across_another_threshold(release, admin):
    change = moved(release, admin, 0.9)
    moved(release, admin, 0.85, Which.SUGGEST)

    with pytest.raises(moving.OutOfOrder):
        moving.take_back(change=change, by=admin)


@pytest.mark.parametrize(
    "broken",
    [
        {"after": 0.0}, {"after": 1.1}, {"before": -0.1}, {"after": 0.8}, {"undone_at": NOW},
    ],
)  # fmt: skip
def test_the_database_refuses_changes_that_make_no_sense(release, admin, broken):
    fields = {"release": release, "which": "flag", "before": 0.8, "after": 0.9, "by": admin}
    with pytest.raises(IntegrityError), transaction.atomic():
        ThresholdChange.objects.create(**{**fields, **broken})


@pytest.mark.django_db(transaction=True)
def test_of_two_who_move_it_at_once_one_is_told(release, admin):
    said, start = [], threading.Barrier(2)

    def one(after):
        start.wait()
        try:
            moving.move(release=release, which=Which.FLAG, before=0.8, after=after, by=admin)
            said.append("moved")
        except moving.ThresholdMoved:
            said.append("told")
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(after,)) for after in (0.9, 0.7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(said) == ["moved", "told"]
    assert ThresholdChange.objects.count() == 1


# What would have been.


def asked(days_ago, **fields):
    question = QuestionFactory(asked_at=NOW - timedelta(days=days_ago), **fields)
    outbox.put(question, now=NOW)
    OutboxEntry.objects.filter(question=question).update(settled_at=NOW, checked_by="f" * 64)
    return question


def replay(release):
    return replaying.read(release, now=NOW, zone="UTC")


def test_a_replay_counts_flags_on_the_day_of_the_newer_question(release):
    newer, other = asked(3), asked(5)
    old = asked(200)
    scored(release, 0.7, newer=newer, older=old)
    scored(release, 0.9, newer=other, older=old)

    found = replay(release)

    by_day = dict(zip(found.days, found.opened(0.6).sum(axis=1).tolist(), strict=True))
    assert {day: n for day, n in by_day.items() if n} == {
        timezone.localdate(newer.asked_at): 1, timezone.localdate(other.asked_at): 1,
    }  # fmt: skip
    assert found.opened(0.8).sum() == 1
    assert found.opened(0.95).sum() == 0
    assert found.checked.sum() == 2


def test_a_replay_counts_a_thread_once_and_only_so_many_for_a_question(release, settings):
    settings.DEDUP_FLAGS_PER_QUESTION = 2
    newer, root = asked(1), asked(100)
    for probability in (0.7, 0.8):
        scored(release, probability, newer=newer, older=asked(90, canonical=root))
    assert replay(release).opened(0.6).sum() == 1

    for _ in range(3):
        scored(release, 0.65, newer=newer, older=asked(80))
    assert replay(release).opened(0.6).sum() == 2


def test_a_replay_knows_products_and_languages(release):
    lamp = asked(1, language="en")
    radio = asked(1, product=ProductFactory(slug="radio"), language="de")
    scored(release, 0.9, newer=radio, older=lamp)

    found = replay(release)

    opened = dict(zip(found.segments, found.opened(0.8).sum(axis=0).tolist(), strict=True))
    assert opened == {(lamp.product_id, "en"): 0, (radio.product_id, "de"): 1}


def test_a_replay_says_what_would_be_shown_to_somebody_who_asks(release):
    newer = asked(1)
    for probability in (0.5, 0.3, 0.01):
        scored(release, probability, newer=newer)

    found = replay(release)

    assert found.shown(0.5).sum() == 2  # from 0.4 of it on
    assert found.with_any(0.5).sum() == 1
    assert found.shown(0.02).sum() == 3


def test_a_replay_does_not_read_what_another_release_said_or_what_is_old(release):
    scored(ReleaseFactory(), 0.9, newer=asked(1))
    scored(release, 0.9, newer=asked(40))

    assert replay(release).opened(0.5).sum() == 0


def test_a_replay_is_kept_for_a_moment(release, django_assert_num_queries):
    scored(release, 0.9, newer=asked(1))
    before = replaying.last_days(release, now=NOW)
    scored(release, 0.9, newer=asked(1))

    assert replaying.last_days(release, now=NOW).opened(0.5).sum() == before.opened(0.5).sum() == 1


@pytest.mark.django_db(transaction=True)
def test_a_move_and_a_review_of_the_same_pair_wait_for_each_other_in_one_order(release, admin):
    """Whoever reviews holds the questions, then wants the flag. A move that held the flag first
    would want to put one of the questions back, and neither could go on."""
    flag = FlagFactory(release=release, probability=0.2)
    outbox.put(flag.older)
    scored(release, release.threshold - 0.1, newer=flag.newer)
    OutboxEntry.objects.filter(question=flag.newer).delete()
    held, errors = threading.Event(), []
    wanted = release.threshold - 0.2

    def move():
        try:
            held.wait(10)
            moved(release, admin, wanted)
        except Exception as error:
            errors.append(error)
        finally:
            held.set()
            connection.close()

    other = threading.Thread(target=move)
    other.start()
    with transaction.atomic():
        merging.lock_threads(flag.older_id, flag.newer_id)
        held.set()
        eventually_waits()
        Flag.objects.select_for_update().get(pk=flag.pk)
    other.join(10)

    assert errors == []
    assert not other.is_alive()
    flag.refresh_from_db()
    assert flag.status == Flag.Status.WITHDRAWN
    assert OutboxEntry.objects.filter(question=flag.newer, is_background=True).exists()


def eventually_waits():
    """Until another connection waits for a lock of ours."""
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.02)
    pytest.fail("the move waits for nothing")
