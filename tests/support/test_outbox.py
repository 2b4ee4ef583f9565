import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from support import asking, outbox
from support.models import OutboxEntry, Question
from tests.factories import ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()
LATER = NOW + timedelta(seconds=settings.DEDUP_LEASE_SECONDS + 1)


@pytest.fixture(autouse=True)
def _new_process(monkeypatch):
    monkeypatch.setattr(outbox, "_suspect_is_next", False)
    monkeypatch.setattr(outbox, "_silent_until", 0.0)


@pytest.fixture
def waiting():
    """Three questions that wait, the first of them longest."""
    questions = QuestionFactory.create_batch(3)
    for age, question in zip((3, 2, 1), questions, strict=True):
        outbox.put(question, now=NOW - timedelta(minutes=age))
    return questions


def entry_of(question):
    return OutboxEntry.objects.get(question=question)


def ids(claims):
    return [claim.question_id for claim in claims]


def die_with(claims, *, now):
    """The worker that held these dies; the next one claims after the lease."""
    assert claims
    return outbox.claim(limit=16, now=now)


def test_a_question_that_is_submitted_waits_and_rings_once(
    customer, bells, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        question = asking.submit_question(
            product=ProductFactory(), title="It is dark", body="", audience="public", by=customer
        )

    assert OutboxEntry.objects.waiting().get().question == question
    assert bells == ["bell"]


def test_a_question_that_is_rolled_back_leaves_no_entry(customer, bells):
    with transaction.atomic():
        asking.submit_question(
            product=ProductFactory(), title="It is dark", body="", audience="public", by=customer
        )
        transaction.set_rollback(True)

    assert (Question.objects.count(), OutboxEntry.objects.count(), bells) == (0, 0, [])


def test_the_oldest_are_claimed_first_and_up_to_the_limit(waiting):
    claims = outbox.claim(limit=2, now=NOW)

    assert ids(claims) == [waiting[0].pk, waiting[1].pk]
    assert entry_of(waiting[0]).leased_until == NOW + timedelta(
        seconds=settings.DEDUP_LEASE_SECONDS
    )
    assert len({claim.token for claim in claims}) == 2


def test_what_is_held_is_not_claimed_again_before_its_lease_is_over(waiting):
    outbox.claim(limit=16, now=NOW)

    assert outbox.claim(limit=16, now=LATER - timedelta(seconds=2)) == []
    assert outbox.claim(limit=16, now=LATER)


def test_nothing_waits_nothing_is_claimed():
    assert outbox.claim(limit=16, now=NOW) == []


def test_settling_a_claim_ends_the_wait(waiting):
    (claim,) = outbox.claim(limit=1, now=NOW)

    with outbox.settling(claim, now=NOW):
        pass

    entry = entry_of(waiting[0])
    assert (entry.settled_at, entry.token, entry.leased_until) == (NOW, None, None)
    assert OutboxEntry.objects.waiting().count() == 2


def test_a_claim_is_settled_once(waiting):
    (claim,) = outbox.claim(limit=1, now=NOW)
    with outbox.settling(claim):
        pass

    with pytest.raises(outbox.ClaimLost, match=str(waiting[0].pk)), outbox.settling(claim):
        pass


def test_a_check_that_failed_after_its_claim_was_settled_counts_against_nobody(waiting):
    claims = outbox.claim(limit=1, now=NOW)
    settle(*claims)

    outbox.fail(claims, error=ValueError(), now=NOW)

    entry = entry_of(waiting[0])
    assert (entry.is_suspect, entry.attempts, entry.settled_at) == (False, 0, NOW)


def test_a_question_that_failed_and_was_then_checked_keeps_no_trace_of_it(waiting):
    outbox.fail(outbox.claim(limit=1, now=NOW), error=ValueError(), now=NOW)
    settle(*outbox.claim(limit=1, now=NOW))

    assert (entry_of(waiting[0]).settled_at, entry_of(waiting[0]).failure) == (NOW, "")


def test_an_edit_takes_the_claim_away_and_what_was_found_is_rolled_back(waiting):
    (claim,) = outbox.claim(limit=1, now=NOW)
    outbox.put(waiting[0], now=NOW)

    with pytest.raises(outbox.ClaimLost), outbox.settling(claim):
        Question.objects.filter(pk=waiting[1].pk).update(body="found")

    assert entry_of(waiting[0]).settled_at is None
    assert Question.objects.get(pk=waiting[1].pk).body != "found"


def test_a_worker_that_comes_back_after_its_lease_writes_nothing(waiting):
    (stale,) = outbox.claim(limit=1, now=NOW)
    outbox.claim(limit=16, now=LATER)

    with pytest.raises(outbox.ClaimLost), outbox.settling(stale):
        pass


def test_an_edit_of_a_settled_question_lets_it_be_checked_again(waiting):
    (claim,) = outbox.claim(limit=1, now=NOW)
    with outbox.settling(claim):
        pass

    outbox.put(waiting[0], now=NOW)

    assert OutboxEntry.objects.waiting().filter(question=waiting[0]).exists()


def test_an_edit_makes_a_suspect_fresh_again(waiting):
    die_with(outbox.claim(limit=16, now=NOW), now=LATER)

    outbox.put(waiting[2], now=LATER)

    entry = entry_of(waiting[2])
    assert (entry.is_suspect, entry.attempts, entry.failure) == (False, 0, "")


def test_questions_whose_worker_died_are_then_claimed_one_at_a_time(waiting):
    first = die_with(outbox.claim(limit=16, now=NOW), now=LATER)
    second = outbox.claim(limit=16, now=LATER)

    assert (ids(first), ids(second)) == ([waiting[0].pk], [waiting[1].pk])
    assert entry_of(waiting[0]).failure == "worker died"


def test_a_failure_in_company_counts_against_nobody(waiting):
    outbox.fail(outbox.claim(limit=16, now=NOW), error=ValueError(), now=NOW)

    entries = OutboxEntry.objects.values_list("is_suspect", "is_alone", "attempts")
    assert set(entries) == {(True, False, 0)}


def test_a_failure_is_kept_by_its_kind_as_far_as_that_fits(waiting):
    kind = type("E" * 300, (Exception,), {})

    outbox.fail(outbox.claim(limit=1, now=NOW), error=kind("secret text"), now=NOW)

    assert entry_of(waiting[0]).failure == "E" * 200


def test_the_log_names_what_went_into_quarantine_and_why_without_its_text(waiting, caplog):
    OutboxEntry.objects.filter(question=waiting[0]).update(attempts=2)

    outbox.fail(outbox.claim(limit=1, now=NOW), error=ValueError("secret text"), now=NOW)

    said = f"Question {waiting[0].pk} is in quarantine: ValueError"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_suspects_and_fresh_questions_take_turns(waiting):
    outbox.fail(outbox.claim(limit=1, now=NOW), error=ValueError(), now=NOW)
    outbox.put(QuestionFactory(), now=NOW)

    turns = [ids(outbox.claim(limit=1, now=NOW)) for _ in range(4)]

    assert turns[:3] == [[waiting[0].pk], [waiting[1].pk], [waiting[2].pk]]
    assert turns[3] == [Question.objects.latest("pk").pk]


def test_a_suspect_that_failed_alone_goes_behind_those_that_never_did(waiting):
    outbox.fail(outbox.claim(limit=16, now=NOW), error=ValueError(), now=NOW)
    outbox.fail(outbox.claim(limit=16, now=NOW), error=ValueError(), now=NOW)
    assert entry_of(waiting[0]).attempts == 1

    turns = [ids(outbox.claim(limit=16, now=NOW)) for _ in range(3)]

    assert turns == [[waiting[1].pk], [waiting[2].pk], [waiting[0].pk]]


@pytest.mark.parametrize("dies", [True, False])
def test_the_third_failure_while_alone_puts_a_question_into_quarantine(waiting, dies):
    OutboxEntry.objects.exclude(question=waiting[0]).delete()
    now = NOW
    for _ in range(3):
        assert OutboxEntry.objects.waiting().count() == 1
        claims = outbox.claim(limit=16, now=now)
        now = now + timedelta(seconds=settings.DEDUP_LEASE_SECONDS + 1)
        if not dies:
            outbox.fail(claims, error=FloatingPointError("secret text"), now=now)

    assert outbox.claim(limit=16, now=now) == []
    entry = OutboxEntry.objects.quarantined().get()
    assert entry.attempts == 3
    assert entry.failure == ("worker died" if dies else "FloatingPointError")


def test_a_shutdown_counts_against_nobody(waiting):
    OutboxEntry.objects.exclude(question=waiting[0]).delete()
    for _ in range(5):
        outbox.release(outbox.claim(limit=16, now=NOW))

    entry = entry_of(waiting[0])
    assert (entry.attempts, entry.is_suspect, entry.is_alone) == (0, False, False)
    assert (entry.token, entry.leased_until) == (None, None)


def test_a_question_in_quarantine_can_be_tried_again_alone(waiting):
    OutboxEntry.objects.filter(question=waiting[0]).update(quarantined_at=NOW, attempts=3)
    OutboxEntry.objects.filter(question=waiting[1]).update(is_suspect=True)

    assert outbox.retry_quarantined(question_ids=[q.pk for q in waiting]) == 1

    entry = entry_of(waiting[0])
    assert (entry.quarantined_at, entry.attempts, entry.is_suspect) == (None, 0, True)


def test_putting_many_renews_known_entries_and_adds_the_missing(waiting):
    new = QuestionFactory()
    (claim,) = outbox.claim(limit=1, now=NOW)

    assert outbox.put_all([waiting[0].pk, new.pk], now=NOW) == 2

    with pytest.raises(outbox.ClaimLost), outbox.settling(claim):
        pass
    assert OutboxEntry.objects.waiting().count() == 4
    assert (entry_of(waiting[0]).put_at, entry_of(new).put_at) == (NOW, NOW)


def test_what_somebody_else_puts_at_the_same_moment_does_no_harm(monkeypatch):
    question, fresh = QuestionFactory(), outbox._fresh

    def meanwhile(now):
        OutboxEntry.objects.get_or_create(question=question)
        return fresh(now)

    monkeypatch.setattr(outbox, "_fresh", meanwhile)

    outbox.put_all([question.pk], is_background=True, now=NOW)

    assert OutboxEntry.objects.waiting().live().get().question == question


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("put", [outbox.put, lambda question: outbox.put_all([question.pk])])
def test_a_bell_that_breaks_undoes_nothing_and_stops_nobody(put, monkeypatch):
    def broken():
        raise RuntimeError("the bell broke")

    monkeypatch.setattr(outbox, "ring", broken)
    question = QuestionFactory()

    put(question)

    assert OutboxEntry.objects.waiting().get().question == question


def test_the_age_of_the_oldest_that_waits_says_how_late_checks_are(waiting):
    assert outbox.seconds_behind(NOW) == 180
    assert outbox.seconds_behind(NOW - timedelta(minutes=3)) == 0
    assert outbox.seconds_behind(NOW - timedelta(minutes=4)) == 0  # by another's clock

    OutboxEntry.objects.update(settled_at=NOW)

    assert outbox.seconds_behind(NOW) == 0


def test_what_somebody_holds_does_not_wait_for_a_bell(waiting):
    outbox.claim(limit=16, now=NOW)

    assert not outbox.has_waiting(NOW)
    assert outbox.has_waiting(LATER)


def test_the_database_refuses_an_entry_both_settled_and_in_quarantine(waiting):
    with pytest.raises(IntegrityError, match="settled_or_quarantined"), transaction.atomic():
        OutboxEntry.objects.update(settled_at=NOW, quarantined_at=NOW)


def test_after_a_bell_that_fails_none_is_tried_for_a_while(monkeypatch, caplog):
    tried = []

    def fail(*args, **kwargs):
        tried.append(args[0])
        raise OperationalError("no broker at redis://:password@host")

    monkeypatch.setattr(outbox.app, "send_task", fail)

    assert [outbox.ring() for _ in range(3)] == [False] * 3
    assert tried == [outbox.CHECK_TASK]
    assert outbox._silent_until - time.monotonic() == pytest.approx(5, abs=1)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["The broker cannot be reached: OperationalError"]
    monkeypatch.setattr(outbox, "_silent_until", time.monotonic())
    assert not outbox.ring(is_patient=True)
    assert len(tried) == 2


def test_nobody_waits_twice_for_a_broker_that_hangs(monkeypatch):
    sent, goes_on = [], threading.Event()

    def hang(*args, **kwargs):
        goes_on.wait(10)
        sent.append(args[0])

    monkeypatch.setattr(outbox.app, "send_task", hang)
    monkeypatch.setattr(outbox, "_silent_until", time.monotonic())  # it failed a while ago

    begun = time.monotonic()
    assert not any(outbox.ring() for _ in range(20))
    assert time.monotonic() - begun < 1
    assert not sent

    goes_on.set()
    while outbox._silent_until != outbox.FIXED:
        assert time.monotonic() - begun < 10
    assert sent == [outbox.CHECK_TASK]  # one try for all of them, and its bell is not lost
    assert outbox.ring()


def test_a_bell_that_rings_carries_nothing(monkeypatch):
    sent = []
    monkeypatch.setattr(
        outbox.app, "send_task", lambda *args, **kwargs: sent.append((args, kwargs))
    )
    once = {"retry": True, "retry_policy": {"max_retries": 1, "interval_start": 0}}

    assert outbox.ring()
    assert outbox.send("dedup.tasks.train", "7", queue="training")

    for _, options in sent:
        del options["producer"]
    assert sent == [
        (("dedup.tasks.check_waiting", ()), once),
        (("dedup.tasks.train", ("7",)), once | {"queue": "training"}),
    ]


def test_no_more_bells_pile_up_than_workers_could_hear():
    broker = redis.Redis.from_url(settings.REDIS_URL)
    broker.delete(outbox.CHECK_QUEUE)

    assert all(outbox.ring() for _ in range(outbox.MOST_BELLS + 20))
    assert broker.llen(outbox.CHECK_QUEUE) == outbox.MOST_BELLS

    broker.lpop(outbox.CHECK_QUEUE)  # a worker hears one
    assert outbox.ring()
    assert broker.llen(outbox.CHECK_QUEUE) == outbox.MOST_BELLS
    broker.delete(outbox.CHECK_QUEUE)


def test_a_bell_rings_over_a_line_that_the_broker_cut():
    broker = redis.Redis.from_url(settings.REDIS_URL)
    broker.delete(outbox.CHECK_QUEUE)
    assert outbox.ring()

    for line in broker.client_list():
        broker.client_kill_filter(_id=line["id"], skipme=True)

    assert outbox.ring()
    assert broker.llen(outbox.CHECK_QUEUE) == 2
    broker.delete(outbox.CHECK_QUEUE)


@pytest.mark.django_db(transaction=True)
def test_claimers_at_the_same_moment_never_get_the_same_question():
    asker, product = UserFactory(), ProductFactory()
    questions = QuestionFactory.create_batch(60, asked_by=asker, product=product)
    outbox.put_all([question.pk for question in questions])
    start, taken = threading.Barrier(6), []

    def work():
        start.wait()
        while claims := outbox.claim(limit=3, now=timezone.now()):
            taken.extend(ids(claims))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted(question.pk for question in questions)


@pytest.mark.django_db(transaction=True)
def test_a_claim_passes_over_what_another_worker_is_just_settling(waiting):
    (first,) = outbox.claim(limit=1, now=NOW)
    found = []

    def work():
        found.extend(ids(outbox.claim(limit=16, now=LATER)))
        connection.close()

    with outbox.settling(first):
        OutboxEntry.objects.select_for_update().get(question=first.question_id)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    assert found == [waiting[1].pk, waiting[2].pk]
    assert entry_of(waiting[0]).settled_at


def settle(*claims, checked_by="release"):
    for claim in claims:
        with outbox.settling(claim, checked_by=checked_by, now=NOW):
            pass


@pytest.fixture
def old():
    """Two questions that wait in the background, put before all that `waiting` has."""
    questions = QuestionFactory.create_batch(2)
    put = {"is_background": True, "now": NOW - timedelta(hours=1)}
    assert outbox.put_all([question.pk for question in questions], **put) == 2
    return questions


def test_the_background_is_claimed_only_where_no_other_question_can_be(waiting, old):
    turns = [ids(outbox.claim(limit=2, now=NOW)) for _ in range(4)]

    assert turns == [
        [waiting[0].pk, waiting[1].pk],
        [waiting[2].pk],
        [question.pk for question in old],
        [],
    ]


def test_a_claim_says_that_it_is_of_the_background(waiting, old):
    outbox.claim(limit=1, now=NOW)

    assert [claim.is_background for claim in outbox.claim(limit=16, now=NOW)] == [False, False]
    assert [claim.is_background for claim in outbox.claim(limit=16, now=NOW)] == [True, True]


def test_suspects_that_somebody_waits_for_go_before_the_background(waiting, old):
    outbox.fail(outbox.claim(limit=16, now=NOW), error=ValueError(), now=NOW)

    turns = [ids(outbox.claim(limit=16, now=NOW)) for _ in range(4)]

    assert turns == [*([question.pk] for question in waiting), [question.pk for question in old]]


def test_fresh_questions_and_suspects_of_the_background_take_turns_too(old):
    outbox.fail(outbox.claim(limit=1, now=NOW), error=ValueError(), now=NOW)

    turns = [ids(outbox.claim(limit=16, now=NOW)) for _ in range(2)]

    assert sorted(turns) == [[old[0].pk], [old[1].pk]]


def test_a_question_of_the_background_that_kills_ends_in_quarantine(old):
    OutboxEntry.objects.exclude(question=old[0]).delete()
    now = NOW
    for _ in range(3):
        assert outbox.claim(limit=16, now=now)
        now = now + timedelta(seconds=settings.DEDUP_LEASE_SECONDS + 1)

    assert outbox.claim(limit=16, now=now) == []
    assert OutboxEntry.objects.quarantined().get().failure == "worker died"


def test_an_edit_takes_a_question_out_of_the_background_and_its_claim_away(old):
    claims = outbox.claim(limit=16, now=NOW)

    outbox.put(old[0], now=NOW)

    with pytest.raises(outbox.ClaimLost), outbox.settling(claims[0]):
        pass
    assert ids(outbox.claim(limit=16, now=NOW)) == [old[0].pk]


def test_what_somebody_waits_for_never_goes_into_the_background(waiting):
    (claim,) = outbox.claim(limit=1, now=NOW)

    assert outbox.put_all([q.pk for q in waiting], is_background=True, now=NOW) == 0

    assert OutboxEntry.objects.waiting().live().count() == 3
    settle(claim)  # its claim is still good


def test_what_is_in_quarantine_stays_there_when_all_are_put_into_the_background(waiting):
    OutboxEntry.objects.filter(question=waiting[0]).update(quarantined_at=NOW)

    assert outbox.put_all([waiting[0].pk], is_background=True, now=NOW) == 0

    assert OutboxEntry.objects.quarantined().get().question == waiting[0]


def test_putting_the_background_again_keeps_claims_and_counts_what_waits(old):
    (claim,) = outbox.claim(limit=1, now=NOW)

    assert outbox.put_all([q.pk for q in old], is_background=True, now=NOW) == 2

    assert outbox.behind(NOW).count() == 2
    settle(claim)
    assert outbox.behind(NOW).count() == 1


def test_the_background_makes_nothing_late(old):
    assert outbox.seconds_behind(NOW) == 0
    assert outbox.has_waiting(NOW)
    assert not outbox.has_live_waiting(NOW)


def test_a_live_question_shows_beside_the_background(old, waiting):
    assert outbox.has_live_waiting(NOW)
    outbox.claim(limit=16, now=NOW)

    assert not outbox.has_live_waiting(NOW)
    assert outbox.has_live_waiting(LATER)


def test_what_is_checked_again_in_the_background_is_not_unchecked(waiting):
    settle(*outbox.claim(limit=16, now=NOW), checked_by="first")

    assert outbox.put_all([q.pk for q in waiting], is_background=True, now=NOW) == 3

    assert OutboxEntry.objects.waiting().count() == 3
    assert not OutboxEntry.objects.unchecked().exists()
    assert set(OutboxEntry.objects.values_list("checked_by", flat=True)) == {"first"}


def test_what_was_checked_before_anybody_wrote_down_by_whom_is_not_unchecked_either(waiting):
    OutboxEntry.objects.update(settled_at=NOW)

    outbox.put_all([waiting[0].pk], is_background=True, now=NOW)

    assert not OutboxEntry.objects.unchecked().exists()


def test_imported_questions_and_edited_ones_are_unchecked(waiting, old):
    settle(*outbox.claim(limit=16, now=NOW))
    outbox.put(waiting[0], now=NOW)

    unchecked = OutboxEntry.objects.unchecked().values_list("question", flat=True)

    assert set(unchecked) == {waiting[0].pk, *(question.pk for question in old)}


def test_settling_says_which_release_checked(waiting):
    settle(*outbox.claim(limit=16, now=NOW), checked_by="second")

    assert set(OutboxEntry.objects.values_list("checked_by", flat=True)) == {"second"}


def test_taking_the_background_back_leaves_no_question_unchecked_that_was_checked(waiting, old):
    settle(*outbox.claim(limit=16, now=NOW), checked_by="first")
    put = NOW + timedelta(seconds=1)
    outbox.put_all([waiting[0].pk, old[0].pk], is_background=True, now=put)
    (claim,) = outbox.claim(limit=1, now=put)

    assert outbox.take_back(put_at=put, back_to=NOW, now=LATER) == 2

    entry = entry_of(waiting[0])
    assert (entry.put_at, entry.settled_at, entry.token) == (NOW, LATER, None)
    assert entry.checked_by == "first"
    assert not OutboxEntry.objects.filter(question=old[0]).exists()
    assert OutboxEntry.objects.waiting().get().question == old[1]  # put by somebody else
    assert claim.is_background


@pytest.mark.django_db(transaction=True)
def test_claimers_of_the_background_never_get_the_same_question_and_live_ones_come_first():
    asker, product = UserFactory(), ProductFactory()
    questions = QuestionFactory.create_batch(60, asked_by=asker, product=product)
    pks = [question.pk for question in questions]
    outbox.put_all(pks[:40], is_background=True)
    outbox.put_all(pks[40:])
    start, taken = threading.Barrier(6), []

    def work():
        start.wait()
        while claims := outbox.claim(limit=3, now=timezone.now()):
            assert len({claim.is_background for claim in claims}) == 1
            taken.extend(ids(claims))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted(pks)


def test_while_a_worker_is_at_work_a_queue_is_late_only_where_it_is_long(waiting):
    assert not outbox.is_late(NOW - timedelta(minutes=2, seconds=30))
    assert outbox.is_late(NOW)

    assert not outbox.is_late(NOW - timedelta(minutes=2))  # waits for a minute, and not longer

    outbox.claim(limit=1, now=NOW)

    assert not outbox.is_late(NOW)
    assert outbox.is_late(LATER)  # its lease ran out: nobody is at work
    OutboxEntry.objects.filter(leased_until=None).update(put_at=NOW - timedelta(minutes=10))
    assert not outbox.is_late(NOW)
    assert outbox.is_late(NOW + timedelta(seconds=1))


def test_what_nobody_waits_for_is_never_late():
    outbox.put_all([QuestionFactory().pk], is_background=True, now=NOW - timedelta(hours=3))

    assert not outbox.is_late(NOW)


def test_what_is_taken_back_while_a_worker_holds_it_is_held_no_more(waiting):
    settle(*outbox.claim(limit=16, now=NOW))
    outbox.put_all([waiting[0].pk], is_background=True, now=NOW)
    (claim,) = outbox.claim(limit=1, now=NOW)

    outbox.take_back(put_at=NOW, back_to=NOW, now=LATER)

    entry = entry_of(waiting[0])
    assert (entry.token, entry.leased_until, entry.is_alone) == (None, None, False)
    with pytest.raises(outbox.ClaimLost):
        settle(claim)


def test_what_somebody_waits_for_is_not_taken_back(waiting):
    put = entry_of(waiting[0]).put_at

    assert outbox.take_back(put_at=put, back_to=NOW, now=NOW) == 0

    assert OutboxEntry.objects.waiting().count() == 3


def test_what_is_dropped_waits_no_more_and_a_claim_of_it_is_void(waiting):
    claims = outbox.claim(limit=2, now=NOW)

    outbox.drop([waiting[0].pk, waiting[1].pk], now=LATER)

    assert OutboxEntry.objects.waiting().get().question == waiting[2]
    dropped = OutboxEntry.objects.filter(settled_at=LATER, put_at=LATER)
    assert set(dropped.values_list("token", "leased_until", "is_alone")) == {(None, None, False)}
    with pytest.raises(outbox.ClaimLost):
        settle(claims[0])


def test_an_entry_says_of_itself_what_the_list_of_unchecked_says(waiting, old):
    settle(*outbox.claim(limit=2, now=NOW))
    outbox.put_all([waiting[0].pk], is_background=True, now=NOW)
    OutboxEntry.objects.filter(question=waiting[2]).update(quarantined_at=NOW)

    unchecked = {entry.question for entry in OutboxEntry.objects.all() if entry.is_unchecked}

    assert unchecked == {waiting[2], *old}
    assert unchecked == {entry.question for entry in OutboxEntry.objects.unchecked()}


def test_an_edited_question_goes_behind_those_that_wait_for_longer(waiting):
    outbox.put(waiting[0], now=NOW)

    turns = [ids(outbox.claim(limit=1, now=NOW)) for _ in range(3)]

    assert turns == [[waiting[1].pk], [waiting[2].pk], [waiting[0].pk]]


def test_of_suspects_the_one_that_waits_longest_is_claimed_first(waiting):
    OutboxEntry.objects.filter(question=waiting[0]).update(put_at=NOW)
    OutboxEntry.objects.update(is_suspect=True)

    turns = [ids(outbox.claim(limit=1, now=NOW)) for _ in range(3)]

    assert turns == [[waiting[1].pk], [waiting[2].pk], [waiting[0].pk]]


def test_after_a_suspect_a_fresh_question_is_claimed_though_another_suspect_waits(waiting):
    outbox.fail(outbox.claim(limit=2, now=NOW), error=ValueError(), now=NOW)

    turns = [ids(outbox.claim(limit=1, now=NOW)) for _ in range(3)]

    assert turns == [[waiting[0].pk], [waiting[2].pk], [waiting[1].pk]]


@pytest.mark.django_db(transaction=True)
def test_a_claim_does_not_wait_for_a_question_that_is_just_being_edited(waiting):
    def work():
        try:
            return ids(outbox.claim(limit=16, now=NOW))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        outbox.put(waiting[0], now=NOW)

        found = pool.submit(work).result(timeout=10)

    assert found == [waiting[1].pk, waiting[2].pk]
