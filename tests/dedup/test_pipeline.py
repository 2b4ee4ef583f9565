import math
import os
import signal
from datetime import timedelta

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from dedup import embedding, pipeline, scoring, tasks
from dedup.checks import HARD_LIMIT_SECONDS
from dedup.management import here
from dedup.ml.pairs import Judged
from dedup.models import Embedding, Flag, Score
from dedup.releases import NoRelease
from dedup.texts import text_of
from support import asking, merging, outbox
from support.models import OutboxEntry, Question
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _new_process(monkeypatch):
    monkeypatch.setattr(outbox, "_suspect_is_next", False)


def ask(title, **fields):
    question = QuestionFactory(title=title, body="", **fields)
    outbox.put(question)
    return question


def check_all():
    settled = 0
    while found := pipeline.check_waiting(limit=16):
        settled += found
    return settled


def entry_of(question):
    return OutboxEntry.objects.get(question=question)


def test_a_question_asked_twice_is_flagged_once(scorer):
    older, newer = ask("My blue lamp is dark"), ask("My blue lamp is dark")
    ask("Where is the invoice of March")

    assert check_all() == 3

    flag = Flag.objects.get()
    assert (flag.older, flag.newer) == (older, newer)
    assert (flag.probability, flag.release) == (1.0, scorer.release)


def test_checking_again_changes_no_flag_and_asks_no_network(scorer):
    questions = [ask("My blue lamp is dark"), ask("My blue lamp is dark")]
    check_all()
    judged = scorer.judged

    outbox.put_all([question.pk for question in questions])

    assert check_all() == 2
    assert (Flag.objects.count(), scorer.judged) == (1, judged)


def test_what_was_scored_is_kept_with_its_release_and_texts(scorer):
    older, newer = ask("My blue lamp is dark"), ask("My red lamp is dark")

    check_all()

    score = Score.objects.get()
    assert (score.older_hash, score.newer_hash) == (text_of(older).hash, text_of(newer).hash)
    assert score.release == scorer.release
    assert not Flag.objects.exists()


def test_what_the_cosine_settles_is_kept_without_a_logit(scorer, monkeypatch):
    monkeypatch.setattr(
        scorer, "judge", lambda pairs, cosines: [Judged(None, c, 0.1, "cosine") for c in cosines]
    )
    ask("My blue lamp is dark"), ask("My red lamp is dark")

    assert check_all() == 2

    score = Score.objects.get()
    assert (score.logit, score.settled_by, score.probability) == (None, "cosine", 0.1)


def test_a_pair_from_below_the_threshold_is_drawn_once_for_all_checks(scorer, settings):
    settings.DEDUP_SAMPLED_PER_QUESTION = 5
    questions = [ask(f"My lamp number {i} is dark") for i in range(30)]
    check_all()
    first = set(Flag.objects.values_list("pk", "lane", "status"))
    shares = list(Flag.objects.values_list("asked_share", flat=True))
    assert 30 < len(first) < 130
    assert {(lane, status) for _, lane, status in first} == {("sampled", "open")}
    # The first batch of sixteen met fifteen others, the second met all.
    assert {round(share, 3) for share in shares} == {round(5 / 15, 3), round(5 / 29, 3)}

    outbox.put_all([question.pk for question in questions])
    check_all()
    assert first == set(Flag.objects.values_list("pk", "lane", "status"))


def test_no_more_are_flagged_than_the_limit_says(scorer, settings):
    settings.DEDUP_FLAGS_PER_QUESTION = 2
    for _ in range(4):
        QuestionFactory(title="My blue lamp is dark", body="")
    embedding.renew([text_of(question) for question in Question.objects.all()], scorer=scorer)
    ask("My blue lamp is dark")

    check_all()

    assert Flag.objects.count() == 2


def test_a_question_is_not_compared_with_its_own_thread(scorer, admin):
    older, newer = ask("My blue lamp is dark"), ask("My blue lamp is dark")
    merging.merge(duplicate=newer, canonical=older, by=admin)

    check_all()

    assert not Score.objects.exists()


def test_private_questions_are_compared_too_as_only_agents_see_flags(scorer):
    ask("My blue lamp is dark", audience="private")
    ask("My blue lamp is dark")

    check_all()

    assert Flag.objects.count() == 1


def test_an_edit_during_a_check_makes_what_was_found_void(scorer, customer, monkeypatch):
    ask("My blue lamp is dark")
    newer = ask("My blue lamp is dark", asked_by=customer)
    judge = scorer.judge

    def edit_meanwhile(pairs, cosines):
        if pairs and Question.objects.get(pk=newer.pk).version == 1:
            asking.edit_question(
                question=newer, title="Where is the invoice", body="", audience="public",
                by=customer, seen=1,
            )  # fmt: skip
        return judge(pairs, cosines)

    monkeypatch.setattr(scorer, "judge", edit_meanwhile)
    pipeline.check_waiting(limit=16)

    assert entry_of(newer).settled_at is None
    check_all()
    assert entry_of(newer).settled_at
    assert not Flag.objects.open().exists()
    assert Embedding.objects.get(question=newer).text_hash == text_of(newer_now(newer)).hash


def newer_now(question):
    return Question.objects.get(pk=question.pk)


def test_a_candidate_that_was_edited_waits_for_its_own_check(scorer):
    """Its vector is of the older text: a score of the newer one with that cosine would be false."""
    older = ask("My blue lamp is dark")
    check_all()
    Question.objects.filter(pk=older.pk).update(title="My red lamp is dark")
    ask("My blue lamp is dark")

    check_all()
    assert not Score.objects.exists()

    outbox.put(older)
    check_all()
    assert Score.objects.count() == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_leaves_the_question_unchecked(scorer, monkeypatch, bad):
    older = ask("My blue lamp is dark")
    pipeline.check_waiting(limit=16)
    newer = ask("My blue lamp is dark")
    monkeypatch.setattr(
        scorer, "judge", lambda pairs, cosines: [Judged(bad, c, 0.5) for c in cosines]
    )

    for _ in range(8):
        pipeline.check_waiting(limit=16)

    assert not Flag.objects.exists()
    assert list(OutboxEntry.objects.quarantined()) == [entry_of(newer)]
    assert entry_of(older).settled_at
    assert entry_of(newer).failure == "FloatingPointError"


def test_one_poison_question_is_quarantined_and_all_others_are_checked(scorer):
    scorer.broken_by = "poison"
    poison = ask("This is poison")
    for number in range(20):
        ask(f"lamp {number}")

    for _ in range(60):
        pipeline.check_waiting(limit=16)

    assert list(OutboxEntry.objects.unchecked()) == [entry_of(poison)]
    assert entry_of(poison).quarantined_at
    assert entry_of(poison).attempts == 3


def test_the_questions_settled_before_a_failure_stay_settled(scorer, monkeypatch):
    first, second, third = [ask(f"lamp {number}") for number in range(3)]
    find = pipeline.find

    def break_at_second(text, *args, **kwargs):
        if text.question_id == second.pk:
            raise ValueError
        return find(text, *args, **kwargs)

    monkeypatch.setattr(pipeline, "find", break_at_second)

    assert pipeline.check_waiting(limit=16) == 1
    assert entry_of(first).settled_at
    assert (entry_of(third).is_suspect, entry_of(third).attempts) == (True, 0)


def test_without_a_release_questions_wait_untouched(scorer, monkeypatch):
    monkeypatch.undo()
    scorer.release.__class__.objects.update(is_active=False)
    monkeypatch.setattr(scoring, "_loaded", None)
    question = ask("My lamp is dark")

    with pytest.raises(NoRelease):
        pipeline.check_waiting(limit=16)
    tasks.check_waiting()
    with pytest.raises(CommandError, match="No release is active"):
        call_command("check_waiting")

    entry = entry_of(question)
    assert (entry.settled_at, entry.attempts, entry.is_suspect) == (None, 0, False)


@pytest.mark.parametrize("reason", [SystemExit, KeyboardInterrupt])
def test_a_worker_that_is_told_to_stop_gives_its_questions_back(scorer, monkeypatch, reason):
    question = ask("My lamp is dark")

    def stop(*args, **kwargs):
        raise reason

    monkeypatch.setattr(pipeline, "find", stop)
    for _ in range(4):
        with pytest.raises(reason):
            pipeline.check_waiting(limit=16)

    entry = entry_of(question)
    assert (entry.attempts, entry.is_suspect, entry.token) == (0, False, None)
    assert outbox.has_waiting(timezone.now())


def test_a_question_that_takes_too_long_and_swallows_the_soft_limit_is_given_up(
    scorer, monkeypatch
):
    question = ask("My lamp is dark")

    def hang(*args, **kwargs):
        raise SystemExit  # so the hard limit ends a process, as long as it hears that

    monkeypatch.setattr(pipeline, "find", hang)
    monkeypatch.setattr(pipeline, "BATCH_SECONDS", 0.0)
    monkeypatch.setattr(pipeline, "HANGS_SECONDS", 0.0)
    for _ in range(3):
        with pytest.raises(SystemExit):
            pipeline.check_waiting(limit=16)

    entry = entry_of(question)
    assert (entry.attempts, entry.failure) == (3, "SystemExit")
    assert entry.quarantined_at


@pytest.mark.parametrize("is_given_up", [False, True])
def test_what_failed_alone_is_read_beside_no_other_until_it_is_checked_itself(scorer, is_given_up):
    doubtful = ask("My blue lamp is dark")
    check_all()
    outbox.put(doubtful)
    now = timezone.now()
    entry = OutboxEntry.objects.filter(question=doubtful)
    entry.update(
        attempts=1, is_suspect=True, leased_until=now + timedelta(minutes=1),
        quarantined_at=now if is_given_up else None,
    )  # fmt: skip
    ask("My blue lamp is dark")
    ask("My blue lamp is dark")

    assert check_all() == 2
    assert {doubtful.pk} & {*Flag.objects.values_list("older", flat=True)} == set()

    entry.update(leased_until=None, quarantined_at=None)
    assert check_all() == 1
    assert Flag.objects.filter(older=doubtful).count() == 2


class Cause(Exception):
    def __init__(self, sqlstate):
        self.sqlstate = sqlstate


def an_error(kind, sqlstate):
    error = kind("the connection is lost")
    error.__cause__ = Cause(sqlstate)
    return error


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sqlstate", ["53300", "57P01"])
def test_a_database_that_is_full_or_going_down_is_no_question_s_fault(
    scorer, monkeypatch, sqlstate
):
    question = ask("My lamp is dark")

    def refuse(*args, **kwargs):
        raise an_error(OperationalError, sqlstate)

    monkeypatch.setattr(pipeline, "find", refuse)
    for _ in range(4):
        with pytest.raises(OperationalError):
            pipeline.check_waiting(limit=16)

    entry = entry_of(question)
    assert (entry.attempts, entry.is_suspect, entry.token) == (0, False, None)


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_breaks_during_a_check_is_no_question_s_fault(scorer, monkeypatch):
    question, judge = ask("My lamp is dark"), scorer.judge
    url = os.environ["DATABASE_URL"].rpartition("/")[0] + "/postgres"

    def break_connection(pairs, cosines):
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid]
            )
        return judge(pairs, cosines)

    monkeypatch.setattr(scorer, "judge", break_connection)
    for _ in range(4):
        with pytest.raises((OperationalError, InterfaceError)):
            pipeline.check_waiting(limit=16)
        assert not connection.in_atomic_block

    entry = entry_of(question)
    assert (entry.attempts, entry.is_suspect, entry.token) == (0, False, None)
    monkeypatch.setattr(scorer, "judge", judge)
    assert pipeline.check_waiting(limit=16) == 1


def test_a_text_that_the_database_refuses_is_that_question_s_fault(scorer, monkeypatch):
    question = ask("My lamp is dark")

    def refuse(*args, **kwargs):
        raise an_error(OperationalError, "54000")

    monkeypatch.setattr(pipeline, "find", refuse)
    for _ in range(3):
        pipeline.check_waiting(limit=16)

    assert entry_of(question).quarantined_at


def test_a_slow_machine_gives_the_rest_of_its_batch_back(scorer, monkeypatch):
    monkeypatch.setattr(pipeline, "BATCH_SECONDS", 0.0)
    for number in range(3):
        ask(f"lamp {number}")

    assert pipeline.check_waiting(limit=16) == 1
    assert set(OutboxEntry.objects.waiting().values_list("token", "is_suspect")) == {(None, False)}


def test_no_transaction_is_open_while_the_networks_run(scorer, monkeypatch):
    seen, judge = [], scorer.judge
    depth = len(connection.savepoint_ids)
    monkeypatch.setattr(
        scorer, "judge", lambda *a: seen.append(len(connection.savepoint_ids)) or judge(*a)
    )
    ask("My blue lamp is dark")
    ask("My red lamp is dark")

    check_all()

    assert set(seen) == {depth}


def test_only_pairs_that_are_flagged_are_aligned_and_in_no_transaction(scorer, monkeypatch):
    seen, align = [], scorer.align
    depth = len(connection.savepoint_ids)
    monkeypatch.setattr(
        scorer, "align", lambda pairs: seen.append(len(connection.savepoint_ids)) or align(pairs)
    )
    for title in ("My blue lamp is dark", "My blue lamp is dark", "My red lamp is dim"):
        ask(title)

    check_all()

    assert scorer.aligned == 2  # the same pair, from both sides
    assert set(seen) == {depth}
    assert ["lamp", 0, "lamp", 0, 1.0] in Flag.objects.get().alignment


def test_words_that_cannot_be_aligned_stop_no_check(scorer, monkeypatch, caplog):
    def fail(pairs):
        raise FloatingPointError("not finite")

    monkeypatch.setattr(scorer, "align", fail)
    ask("My blue lamp is dark")
    newer = ask("My blue lamp is dark")

    assert check_all() == 2
    assert Flag.objects.get().alignment is None
    assert f"Question {newer.pk} is checked without its aligned words" in caplog.text


def test_a_time_limit_that_runs_out_while_words_are_aligned_is_not_overheard(scorer, monkeypatch):
    def run_out(pairs):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(scorer, "align", run_out)
    entries = [entry_of(ask("My blue lamp is dark")) for _ in range(2)]

    assert pipeline.check_waiting(limit=16) == 0
    assert not Flag.objects.exists()
    assert {one.pk for one in OutboxEntry.objects.filter(is_suspect=True)} == {
        one.pk for one in entries
    }


def test_the_task_rings_again_while_something_is_left(scorer, bells, settings):
    settings.DEDUP_BATCH = 2
    for number in range(5):
        ask(f"lamp {number}")

    for _ in range(3):
        tasks.check_waiting(a_word_of_a_later_version=1)

    assert bells == ["bell", "bell"]
    assert not OutboxEntry.objects.waiting().exists()


def test_the_command_checks_all_that_waits_without_a_broker(scorer, capsys):
    for number in range(20):
        ask(f"lamp {number}")

    call_command("check_waiting")

    assert capsys.readouterr().out == "20 questions checked.\n"


def test_the_command_gives_questions_back_when_it_is_told_to_end(scorer, monkeypatch):
    question = ask("My lamp is dark")
    monkeypatch.setattr(
        pipeline, "find", lambda *args, **kwargs: signal.raise_signal(signal.SIGTERM)
    )
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        call_command("check_waiting")

    assert (entry_of(question).attempts, entry_of(question).token) == (0, None)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.django_db(transaction=True)
def test_a_check_that_is_stopped_in_mid_statement_gives_its_questions_back(scorer, monkeypatch):
    question = ask("My lamp is dark")

    def stop(*_):
        raise SystemExit

    def wait_in_the_database(*args, **kwargs):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(20)")

    monkeypatch.setattr(pipeline, "find", wait_in_the_database)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(SystemExit):
            pipeline.check_waiting(limit=16)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert (entry_of(question).attempts, entry_of(question).token) == (0, None)


def test_a_check_that_hangs_is_killed_as_in_a_worker(scorer, monkeypatch):
    ask("My lamp is dark")
    left, check = [], pipeline.check_waiting

    def look(*, limit):
        left.append(signal.alarm(0))
        return check(limit=limit)

    monkeypatch.setattr(here.pipeline, "check_waiting", look)
    call_command("check_waiting")

    assert left == [HARD_LIMIT_SECONDS]
    assert signal.alarm(0) == 0


def test_rechecking_puts_every_question_back_merged_ones_too(scorer, admin, capsys):
    older, newer = ask("My blue lamp is dark"), ask("My blue lamp is dark")
    check_all()
    merging.merge(duplicate=newer, canonical=older, by=admin)

    call_command("recheck", "--all", "--no-wait")

    assert OutboxEntry.objects.waiting().filter(is_background=True).count() == 2
    assert "2 questions" in capsys.readouterr().out


def test_after_a_new_bi_encoder_a_recheck_compares_all_again(scorer):
    older = ask("and the of")
    ask("and the of")
    check_all()
    scorer.embedding_fingerprint = "d" * 64
    Score.objects.all().delete()

    call_command("recheck", "--all", "--here")

    assert set(Embedding.objects.values_list("fingerprint", flat=True)) == {"d" * 64}
    assert Score.objects.get().older == older
