import os
import signal
import subprocess
import sys
import time

import pytest
from django.db import connection
from django.utils import timezone

from dedup import job_tasks, jobs, releases, starting
from dedup.models import Job
from support import local, outbox
from tests import services
from tests.dedup.ml.networks import write_parent
from tests.dedup.test_learning import decided
from tests.factories import ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def ended(monkeypatch):
    """Processes that were started for jobs, each with how it ended; no real one."""
    codes = []

    class Child:
        def wait(self):
            return codes.pop(0)

    monkeypatch.setattr(local, "spawn", lambda *_: Child())
    monkeypatch.setattr(outbox, "send", lambda *_, **__: True)
    return codes


def test_nothing_is_started_where_no_job_waits(ended):
    job_tasks.run_jobs()

    assert ended == []


@pytest.mark.usefixtures("enough_verdicts")
def test_one_process_after_the_other_does_what_waits_until_one_cannot(ended):
    starting.training(by=None)
    ended += [0, 0, 3, 0]

    job_tasks.run_jobs()

    assert ended == [0]


def test_long_work_that_those_who_check_do_wakes_nobody(ended):
    jobs.start(kind=Job.Kind.RECHECK, by=None)

    job_tasks.run_jobs()

    assert ended == []


def test_a_process_of_its_own_follows_in_the_shadow_where_a_release_is_there(ended):
    ended += [0, 0]
    job_tasks.follow_in_shadow()
    assert ended == [0, 0]

    ReleaseFactory(shadow_since=timezone.now())
    job_tasks.follow_in_shadow()

    assert ended == [0]


def test_a_worker_that_ends_tells_its_jobs_to_end(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(job_tasks, "_children", [child])
    monkeypatch.setattr(job_tasks, "_is_ending", False)

    job_tasks.end_jobs()

    assert child.wait(10) == -signal.SIGTERM
    assert job_tasks._is_ending


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_real_worker_that_is_told_to_end_gives_its_job_back_at_once(tmp_path, settings):
    assert services.services
    settings.DEDUP_ARTIFACTS = tmp_path / "artifacts"
    write_parent(settings.DEDUP_ARTIFACTS / "tiny-1")
    parent = releases.activate(release=releases.add("tiny-1"))
    decided(parent, 600)
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    environ = os.environ | {
        "DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}",
        "DEDUP_ARTIFACTS": str(settings.DEDUP_ARTIFACTS),
        "DEDUP_TRAINING_FOLDER": str(tmp_path / "training"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    argv = [
        sys.executable, "-m", "celery", "-A", "support.celery:training_app", "worker", "-Q",
        "training", "-P", "threads", "-c", "1", "-n", "training-test@%h", "-l", "INFO",
    ]  # fmt: skip
    log = tmp_path / "log"
    outbox.app.control.purge()
    worker = local.spawn(argv, log=log, env=environ)
    job = starting.training(by=None, epochs=20)

    def until(is_so):
        deadline = time.monotonic() + 180
        while not is_so():
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
            job.refresh_from_db()

    until(lambda: job.state == Job.State.RUNNING)
    worker.send_signal(signal.SIGTERM)
    worker.wait(120)

    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.WAITING, 0), log.read_text()
