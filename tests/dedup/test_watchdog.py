"""A worker that runs and consumes nothing is found, and nobody else is."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from dedup import watchdog, watching
from dedup.management.commands import check_worker
from dedup.management.demo.stack import Stack
from dedup.watchdog import Signs
from support import local, outbox
from support.models import OutboxEntry
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db

NAME = "checks@here"
HOUR = 3600.0


@pytest.mark.parametrize(
    ("signs", "running", "is_stuck"),
    [
        (Signs(True, False, 200.0), HOUR, True),
        (Signs(True, False, 100.0), HOUR, False),  # it gave a sign of late
        (Signs(False, False, 200.0), HOUR, False),  # nothing waits
        (Signs(True, True, 200.0), HOUR, False),  # somebody is in the midst of a batch
        (Signs(True, False, 9000.0), 300.0, False),  # a predecessor's: it loads its networks
        (Signs(True, False, None), 300.0, False),
        (Signs(True, False, None), 700.0, True),  # it has loaded for too long
    ],
)
def test_only_who_is_silent_while_work_lies_there_is_stuck(signs, running, is_stuck):
    assert signs.is_stuck(running_seconds=running) is is_stuck


def wait(*, seconds):
    outbox.put(QuestionFactory(), now=timezone.now() - timedelta(seconds=seconds))


def seen(*, seconds, name=NAME, queues=("checks",)):
    watching.note_alive(name, queues, now=timezone.now() - timedelta(seconds=seconds))


def read(name=NAME):
    with connection.cursor() as cursor:
        return watchdog.read(cursor, name)


class TestSigns:
    def test_a_worker_that_was_never_seen_gave_none(self):
        assert read() == Signs(False, False, None)

    def test_a_question_that_has_only_just_come_does_not_wait_yet(self):
        wait(seconds=30)
        assert not read().waits

        wait(seconds=90)
        assert read().waits

    def test_quarantine_waits_for_people(self):
        wait(seconds=90)
        OutboxEntry.objects.update(quarantined_at=timezone.now())

        assert not read().waits

    def test_what_is_claimed_is_held_until_its_lease_is_over(self):
        wait(seconds=90)
        outbox.claim(limit=1, now=timezone.now())
        assert read().is_held

        OutboxEntry.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
        assert not read().is_held

    def test_its_last_sign_is_told_by_its_name(self):
        seen(seconds=200)
        seen(seconds=10, name="checks@there")

        assert read().silent_seconds == pytest.approx(200, abs=5)

    def test_a_worker_of_other_queues_has_no_such_work(self):
        wait(seconds=90)
        seen(seconds=200, name="interactive@here", queues=["interactive"])
        seen(seconds=200, name="all@here", queues=["checks", "interactive"])

        assert [read(name).waits for name in ("interactive@here", "all@here")] == [False, True]


@pytest.fixture
def pidfile(tmp_path):
    """As if a worker had begun an hour ago."""
    file = tmp_path / "worker.pid"
    file.write_text("0")
    os.utime(file, (time.time() - HOUR,) * 2)
    return file


@pytest.fixture
def ended(monkeypatch):
    """Processes that were ended, instead of ending them."""
    pids = []
    monkeypatch.setattr(check_worker, "_end", pids.append)
    monkeypatch.setattr(watchdog, "AGAIN_SECONDS", 0.0)
    return pids


class TestCommand:
    def check(self, pidfile, *words):
        call_command("check_worker", NAME, "--pidfile", str(pidfile), *words)

    def test_a_worker_that_gives_signs_is_well(self, pidfile, ended):
        wait(seconds=90)
        seen(seconds=20)

        self.check(pidfile, "--end")

        assert ended == []

    def test_a_silent_one_is_not_and_goes_on_without_work(self, pidfile, ended):
        seen(seconds=200)

        with pytest.raises(CommandError, match="gives no sign of life"):
            self.check(pidfile, "--end")

        assert ended == []

    def test_a_silent_one_is_ended_where_questions_wait_and_only_if_that_is_wanted(
        self, pidfile, ended
    ):
        wait(seconds=90)
        seen(seconds=200)

        with pytest.raises(CommandError, match="gives no sign of life"):
            self.check(pidfile)
        assert ended == []

        with pytest.raises(CommandError, match="was ended"):
            self.check(pidfile, "--end")
        assert ended == [0]

    def test_one_whose_sign_comes_meanwhile_goes_on(self, pidfile, ended, monkeypatch):
        wait(seconds=90)
        seen(seconds=200)
        naps = iter([lambda: None, lambda: seen(seconds=0)])
        clock = SimpleNamespace(sleep=lambda _: next(naps)(), time=time.time)
        monkeypatch.setattr(check_worker, "time", clock)

        with pytest.raises(CommandError, match="gives no sign of life"):
            self.check(pidfile, "--end")

        assert ended == []

    def test_one_that_has_only_just_begun_is_well(self, pidfile, ended):
        wait(seconds=90)
        seen(seconds=9000)
        pidfile.touch()

        self.check(pidfile, "--end")

        assert ended == []

    def test_without_a_pidfile_none_runs(self, tmp_path):
        with pytest.raises(CommandError, match="No worker runs"):
            self.check(tmp_path / "none")

    def test_without_the_database_nobody_is_judged(self, pidfile, ended, monkeypatch):
        def refuse():
            raise OperationalError("gone")

        monkeypatch.setattr(connection, "cursor", refuse)

        self.check(pidfile, "--end")

        assert ended == []


def test_a_process_that_hears_nothing_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(check_worker, "END_SECONDS", 0.2)
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"deaf\n"

        check_worker._end(child.pid)

        assert child.wait(10) == -signal.SIGKILL


def stack_of(tmp_path, monkeypatch, url):
    """The demo's supervisor, with a worker for checks that began an hour ago."""
    monkeypatch.setattr(watchdog, "AGAIN_SECONDS", 0.0)
    stack = Stack(tmp_path, "localhost", 0, SimpleNamespace(database_url=url))
    stack.run = lambda name: stack.began_at.update({name: time.monotonic()})
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    stack.children["checks"] = local.spawn(argv)
    stack.began_at["checks"] = time.monotonic() - HOUR
    return stack


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    stack = stack_of(tmp_path, monkeypatch, "")
    yield stack
    local.stop(stack.children["checks"])


class TestSupervisor:
    def test_it_looks_twice_before_it_kills(self, supervisor, monkeypatch):
        child, answers = supervisor.children["checks"], iter([True, False, True, True])
        monkeypatch.setattr(supervisor, "_is_stuck", lambda *_: next(answers))
        monkeypatch.setattr(watchdog, "AGAIN_SECONDS", 0.05)

        assert [supervisor.restart_stuck() for _ in range(3)] == [[], [], []]
        assert child.poll() is None
        time.sleep(0.06)
        assert supervisor.restart_stuck() == ["checks"]
        assert child.poll() == -signal.SIGKILL

    def test_where_postgres_is_away_nobody_is_judged(self, supervisor, monkeypatch):
        def refuse(*_args, **_options):
            raise psycopg.OperationalError("gone")

        monkeypatch.setattr(psycopg, "connect", refuse)

        assert supervisor.restart_stuck() == []
        assert supervisor.children["checks"].poll() is None
