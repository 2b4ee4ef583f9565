import subprocess
import sys
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from celery.signals import task_received
from django.conf import settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from support import outbox, sweep
from support.celery import LONGEST_PAUSE_SECONDS, app
from support.models import OutboxEntry
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def stopping():
    return threading.Event()


@pytest.fixture
def no_broker(monkeypatch):
    monkeypatch.setattr(outbox, "ring", lambda **_: False)


def wait(*, seconds):
    question = QuestionFactory()
    outbox.put(question, now=timezone.now() - timedelta(seconds=seconds))
    return question


def test_where_nothing_waits_no_bell_is_rung(bells, stopping):
    assert sweep.sweep_once(stopping) == "nothing waits"
    assert bells == []


def test_a_question_whose_bell_was_lost_is_rung_for_again(bells, stopping):
    wait(seconds=settings.DEDUP_SWEEP_SECONDS + 1)

    assert sweep.sweep_once(stopping) == "rang"
    assert bells == ["bell"]


def test_a_lost_bell_is_rung_again_within_eight_seconds_wherever_the_sweep_stands(bells, stopping):
    pause = settings.DEDUP_SWEEP_SECONDS
    assert pause / 2 + pause < 8
    wait(seconds=pause / 2 + 0.1)

    assert sweep.sweep_once(stopping) == "rang"


def test_a_question_that_has_only_just_come_still_has_its_own_bell(bells, stopping):
    wait(seconds=0)

    assert sweep.sweep_once(stopping) == "nothing waits"


def test_what_a_worker_holds_is_left_to_it_until_its_lease_is_over(bells, stopping):
    wait(seconds=120)
    now = timezone.now()
    outbox.claim(limit=16, now=now)
    assert sweep.sweep_once(stopping) == "nothing waits"

    OutboxEntry.objects.update(leased_until=now - timedelta(seconds=1))

    assert sweep.sweep_once(stopping) == "rang"


def test_quarantine_rings_no_bell(bells, stopping):
    wait(seconds=120)
    OutboxEntry.objects.update(quarantined_at=timezone.now())

    assert sweep.sweep_once(stopping) == "nothing waits"


def test_without_a_broker_a_process_of_its_own_checks_what_waits(
    no_broker, stopping, monkeypatch, tmp_path
):
    mark = tmp_path / "ran"
    program = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    monkeypatch.setattr(sweep, "CHECK_COMMAND", [sys.executable, "-c", program])
    wait(seconds=120)

    assert sweep.sweep_once(stopping) == "checked"
    assert mark.exists()


def test_while_that_process_checks_its_worker_goes_on_giving_signs(
    no_broker, stopping, monkeypatch
):
    program = "import time; time.sleep(1.2)"
    monkeypatch.setattr(sweep, "CHECK_COMMAND", [sys.executable, "-c", program])
    wait(seconds=120)
    signs = []

    sweep.sweep_once(stopping, meanwhile=lambda: signs.append("sign"))

    assert len(signs) >= 2


def test_the_process_that_checks_is_the_command_of_that_name():
    told = subprocess.run(
        [*sweep.CHECK_COMMAND, "--help"], check=False, capture_output=True, text=True
    )

    assert "without a broker" in told.stdout


def test_a_worker_that_stops_tells_the_process_that_checks_to_end(
    no_broker, stopping, monkeypatch, tmp_path
):
    mark = tmp_path / "told"
    program = (
        "import pathlib, signal, sys, time\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(mark.write_text('ended')))\n"
        "mark.write_text('began')\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(sweep, "CHECK_COMMAND", [sys.executable, "-c", program])
    wait(seconds=120)
    watcher = threading.Thread(target=lambda: (await_text(mark, "began"), stopping.set()))
    watcher.start()

    sweep.sweep_once(stopping)
    watcher.join()

    assert mark.read_text() == "ended"


def await_text(path, text):
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text() == text):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_worker_has_a_sweep():
    """In a process of its own: the hook changes the app for good."""
    program = (
        "import django; django.setup()\n"
        "from celery.signals import worker_init\n"
        "from support.celery import app\n"
        "worker_init.send(sender=None)\n"
        "print([step.__name__ for step in app.steps['worker']])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )

    assert told.stdout.strip() == "['Sweep']", told.stderr


def test_a_sweep_that_fails_tries_again(monkeypatch):
    monkeypatch.setattr(settings, "DEDUP_SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(sweep, "close_old_connections", lambda: None)
    step, tried = sweep.Sweep(parent=app), []

    def fail(stopping, **_):
        tried.append(1)
        if len(tried) == 3:
            stopping.set()
        raise OSError("no database")

    monkeypatch.setattr(sweep, "sweep_once", fail)
    step.start(app)
    step.thread.join(30)

    assert tried == [1, 1, 1]
    step.terminate(app)


def test_a_worker_never_waits_long_before_it_looks_for_its_broker_again(monkeypatch):
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda seconds: None)
    pauses = []
    broker = app.connection_for_read("redis://127.0.0.1:1/0")

    with pytest.raises(OperationalError):
        broker.ensure_connection(lambda error, pause: pauses.append(pause), 8)

    assert len(pauses) == 8
    assert max(pauses) == LONGEST_PAUSE_SECONDS


class TestDeafness:
    """Who rings and does not hear it gives no sign of life."""

    @pytest.fixture
    def signs(self, monkeypatch):
        told = []
        monkeypatch.setattr(sweep, "SIGNS_OF_LIFE", [lambda name, queues: told.append(name)])
        return told

    @pytest.fixture
    def worker(self, monkeypatch):
        monkeypatch.setattr(sweep, "DEAF_SECONDS", 0.0)
        queues = SimpleNamespace(consume_from={"checks": None})
        parent = SimpleNamespace(
            hostname="checks@here", app=SimpleNamespace(amqp=SimpleNamespace(queues=queues))
        )
        return sweep.Sweep(parent)

    def test_a_worker_that_hears_none_of_its_rings_gives_no_sign(self, worker, signs, bells):
        wait(seconds=120)

        worker.look()
        time.sleep(0.01)
        worker.look()

        assert (bells, signs) == (["bell", "bell"], ["checks@here"])

    def test_one_that_hears_them_gives_signs(self, worker, signs, bells):
        wait(seconds=120)

        worker.look()
        task_received.send(sender=None)
        worker.look()

        assert signs == ["checks@here"] * 2

    def test_one_that_is_at_work_hears_later(self, worker, signs, bells, monkeypatch):
        wait(seconds=120)
        monkeypatch.setattr(sweep.state, "active_requests", {"a task"})

        for _ in range(3):
            worker.look()

        assert len(signs) == 3

    def test_one_of_other_queues_is_not_rung_for(self, worker, signs, bells):
        wait(seconds=120)
        worker.parent.app.amqp.queues.consume_from = {"interactive": None}

        for _ in range(3):
            worker.look()

        assert len(signs) == 3

    def test_where_nothing_waits_nobody_is_deaf(self, worker, signs, bells):
        wait(seconds=120)
        worker.look()
        OutboxEntry.objects.update(settled_at=timezone.now())
        time.sleep(0.01)
        worker.look()  # deaf as far as it knows

        worker.look()

        assert len(signs) == 2
