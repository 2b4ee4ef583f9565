import os
import subprocess
import sys
from datetime import timedelta

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from dedup import jobs
from dedup.models import Job
from support import outbox
from support.models import AuditEntry
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """Tasks that were sent, instead of a broker."""
    names = []
    monkeypatch.setattr(outbox, "send", lambda task, *_, **__: names.append(task) or True)
    return names


def started(**fields):
    return jobs.start(kind=Job.Kind.TRAIN, by=None, **fields)


def aged(job, age):
    """The job as if its last sign of life had come so long ago."""
    Job.objects.filter(pk=job.pk).update(seen_at=timezone.now() - age)


def test_a_started_job_wakes_a_worker_once_it_is_on_disk(
    admin, sent, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        job = jobs.start(kind=Job.Kind.TRAIN, params={"seed": 1}, by=admin)
        assert sent == []

    assert sent == [jobs.RUN_TASK]
    assert (job.state, job.params, job.by) == (Job.State.WAITING, {"seed": 1}, admin)
    assert AuditEntry.objects.get(action="job_started").details["job"] == job.pk


def test_only_one_of_a_kind_waits_or_runs():
    started()

    with pytest.raises(jobs.JobRuns):
        started()

    jobs.start(kind=Job.Kind.EVALUATE, by=None)


def test_the_database_refuses_a_job_that_ended_at_no_time():
    job = started()

    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(state=Job.State.DONE)


def test_a_worker_does_what_waits_and_keeps_what_came_of_it():
    started(params={"seed": 3})

    done = jobs.run({Job.Kind.TRAIN: lambda run: {"seen": run.params["seed"]}})

    assert (done.state, done.result, done.attempts) == (Job.State.DONE, {"seen": 3}, 1)
    assert done.ended_at
    assert jobs.run({Job.Kind.TRAIN: lambda _: {}}) is None


def test_a_worker_takes_only_what_it_can_do():
    started()

    assert jobs.run({Job.Kind.DISTIL: lambda _: {}}) is None


CANARY = "Heliotrope Wombat"  # as a customer would have written it


def a_value_that_is_none():
    raise ValueError(f"could not convert string to float: {CANARY!r}")


def a_row_that_the_database_quotes():
    QuestionFactory(pk=7, title=CANARY)
    with transaction.atomic():
        cursor = connection.cursor()
        cursor.execute("CREATE TEMP TABLE seen (word text UNIQUE) ON COMMIT DROP")
        cursor.execute("INSERT INTO seen VALUES (%s), (%s)", [CANARY, CANARY])


def an_error_that_follows_another():
    try:
        a_value_that_is_none()
    except ValueError as error:
        raise RuntimeError(str(error)) from error


def a_key_that_is_a_text():
    raise KeyError(CANARY)


@pytest.mark.parametrize(
    ("break_down", "said"),
    [
        (a_value_that_is_none, "ValueError in test_jobs.a_value_that_is_none, line "),
        (a_row_that_the_database_quotes, "IntegrityError (23505) in "),
        (an_error_that_follows_another, "RuntimeError in test_jobs.an_error_that_follows_another"),
        (a_key_that_is_a_text, "KeyError in test_jobs.a_key_that_is_a_text, line "),
    ],
)
def test_an_error_of_the_runner_is_the_jobs_failure_without_a_word_that_it_quotes(
    break_down, said, caplog
):
    started()

    failed = jobs.run({Job.Kind.TRAIN: lambda _run: break_down()})

    assert failed.state == Job.State.FAILED
    assert failed.failure.startswith(said)
    assert said in caplog.text
    kept = f"{failed.failure} {failed.result} {failed.told_failure} {caplog.text}"
    assert not [word for word in CANARY.split() if word in kept]


def test_progress_shows_what_it_does_and_how_long_it_takes_still():
    job = started()

    def look(run):
        run.progress(5, 20, "reading", seconds_left=30.0)
        job.refresh_from_db()
        return {}

    jobs.run({Job.Kind.TRAIN: look})

    assert (job.step, job.percent, job.seconds_left) == ("reading", 25, 30.0)


def test_a_job_that_waits_is_stopped_at_once(admin):
    job = jobs.stop(job=started(), by=admin)

    assert job.state == Job.State.STOPPED
    assert AuditEntry.objects.get(action="job_stopped").by == admin


def test_a_job_that_runs_ends_at_its_next_sign_of_life(admin):
    job = started()

    def work(run):
        jobs.stop(job=job, by=admin)
        run.progress(1, 2, "step")
        raise AssertionError("it went on")

    assert jobs.run({Job.Kind.TRAIN: work}).state == Job.State.STOPPED


def test_a_job_whose_worker_died_is_taken_up_again_and_the_dead_one_writes_nothing():
    job = started()
    now = timezone.now()
    dead = jobs.claim(kinds=[Job.Kind.TRAIN], now=now)
    assert jobs.claim(kinds=[Job.Kind.TRAIN], now=now) is None
    aged(job, jobs.SILENT + timedelta(seconds=1))

    again = jobs.claim(kinds=[Job.Kind.TRAIN], now=now)

    assert again.job.attempts == 2
    with pytest.raises(jobs.JobLost):
        dead.end(Job.State.DONE)


def test_a_job_whose_worker_died_three_times_has_failed():
    job = started()
    for _ in range(jobs.MOST_ATTEMPTS):
        jobs.claim(kinds=[Job.Kind.TRAIN], now=timezone.now())
        aged(job, jobs.SILENT + timedelta(seconds=1))
    assert jobs.has_waiting(timezone.now())

    assert jobs.claim(kinds=[Job.Kind.TRAIN], now=timezone.now()) is None

    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert not jobs.has_waiting(timezone.now())


def test_a_worker_that_is_told_to_end_gives_the_job_back_to_another():
    job = started()

    def ended(_run):
        raise SystemExit

    with pytest.raises(SystemExit):
        jobs.run({Job.Kind.TRAIN: ended})

    job.refresh_from_db()
    assert (job.state, job.token, job.attempts) == (Job.State.WAITING, None, 0)
    assert jobs.run({Job.Kind.TRAIN: lambda _: {}}).state == Job.State.DONE


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_told_to_end_amid_a_statement_gives_its_job_back(monkeypatch):
    job = started()
    send = psycopg.ClientCursor._execute_send

    def cut_off(cursor, query, **options):
        send(cursor, query, **options)
        monkeypatch.setattr(psycopg.ClientCursor, "_execute_send", send)
        raise SystemExit

    def slow(_run):
        monkeypatch.setattr(psycopg.ClientCursor, "_execute_send", cut_off)
        Job.objects.count()

    with pytest.raises(SystemExit):
        jobs.run({Job.Kind.TRAIN: slow})

    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.WAITING, 0)


def test_what_cannot_be_done_is_said_in_words_of_the_readers_language():
    def refuse(_run):
        raise jobs.JobFailed(jobs.NO_MEMORY, megabytes=700)

    started()

    failed = jobs.run({Job.Kind.TRAIN: refuse})

    assert failed.failure.startswith("It needs more memory than it may have: 700 MB")
    assert failed.told_failure == failed.failure
    assert failed.result["said"] == jobs.NO_MEMORY


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "more memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "more memory"),
        (OSError(28, "No space left on device"), "disk is full"),
        (ValueError("lamp"), "ValueError in test_jobs.fail"),
    ],
)
def test_what_the_machine_lacks_is_said_in_plain_words(error, words):
    def fail(_run):
        raise error

    started()

    assert words in jobs.run({Job.Kind.TRAIN: fail}).told_failure


def test_a_process_gets_no_more_memory_than_it_may_have():
    script = (
        "import django, os; os.environ['DJANGO_SETTINGS_MODULE'] = 'support.settings';"
        "django.setup(); from dedup import jobs; jobs.bound_memory(); x = bytearray(600 * 2**20)"
    )
    environ = {**os.environ, "DEDUP_TRAINING_MEMORY_MB": "512"}

    ran = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 1
    assert "MemoryError" in ran.stderr
