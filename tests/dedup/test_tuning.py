from datetime import timedelta

import pytest
from django.utils import timezone

from dedup import idle, scoring, tasks, tuning
from dedup.management import diagnosis
from dedup.ml import tuning as ways
from dedup.ml.tuning import Way
from support import outbox
from tests.dedup.folders import write_release
from tests.dedup.readers import reader
from tests.factories import QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path, settings):
    settings.LOCAL_FOLDER = tmp_path / "local"
    return settings.LOCAL_FOLDER


@pytest.fixture
def worker(tmp_path, folder, monkeypatch):
    """A worker's scorer, whose batches of 500 tokens take half of the time."""
    scorer = reader(write_release(tmp_path, "lamps"))
    release = ReleaseFactory(is_active=True, fingerprint=scorer.fingerprint)
    scorer.fed, scorer.timed = [], 0
    monkeypatch.setattr(scorer, "feed", lambda **way: scorer.fed.append(Way(**way)))
    monkeypatch.setattr(scoring, "active_scorer", lambda: (release, scorer))
    monkeypatch.setattr(idle, "_trial", None)

    def seconds(timed, way):
        scorer.timed += 1
        return 0.5 if way.tokens == 500 else 1.0

    monkeypatch.setattr(ways, "seconds", seconds)
    return scorer


def keep(fingerprint, *, days=0, threads=1):
    at = timezone.now() - timedelta(days=days)
    tuning.keep(fingerprint, tokens=500, threads=threads, ratio=0.5, now=at)


def until_measured(times=20):
    for _ in range(times):
        tasks.check_waiting()


def test_an_idle_worker_measures_step_by_step_then_uses_and_keeps_what_is_quickest(worker):
    tasks.check_waiting()
    assert worker.timed == 2
    assert tuning.current() is None

    until_measured()

    found = tuning.current()
    assert (found.tokens, found.threads, found.ratio) == (500, 1, 0.5)
    assert worker.fed[-1] == Way(500, 1)
    timed = worker.timed
    until_measured()
    assert worker.timed == timed


def test_a_worker_that_has_something_to_check_measures_nothing(worker):
    outbox.put(QuestionFactory())

    tasks.check_waiting()

    assert worker.timed == 0


def test_it_is_measured_anew_after_a_week(worker):
    keep(worker.fingerprint, days=6)
    tasks.check_waiting()
    assert worker.timed == 0

    keep(worker.fingerprint, days=8)
    tasks.check_waiting()

    assert worker.timed == 2


def test_of_two_workers_one_measures(worker):
    with idle._alone() as first, idle._alone() as second:
        assert (first, second) == (True, False)
        tasks.check_waiting()

    assert worker.timed == 0


def test_it_holds_for_a_release_a_machine_and_as_many_threads(worker, settings, monkeypatch):
    keep(worker.fingerprint)
    assert tuning.known(worker.fingerprint)

    assert tuning.known("0" * 64) is None
    settings.DEDUP_THREADS = 2
    assert tuning.known(worker.fingerprint) is None
    settings.DEDUP_THREADS = 1
    monkeypatch.setattr(tuning.platform, "node", lambda: "elsewhere")
    assert tuning.known(worker.fingerprint) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}'])
def test_a_file_that_cannot_be_read_is_as_none(worker, folder, content):
    folder.mkdir()
    (folder / tuning.FILE).write_text(content)

    assert tuning.current() is None
    keep(worker.fingerprint)
    assert tuning.current()


def test_more_threads_than_are_allowed_are_never_used(worker):
    keep(worker.fingerprint, threads=4)

    assert tuning.known(worker.fingerprint) is None


def test_a_folder_that_cannot_be_written_to_stops_no_worker(worker, folder):
    folder.write_text("a file where the folder should be")

    until_measured()

    assert worker.timed == 0
    keep(worker.fingerprint)
    assert tuning.current() is None


def test_the_doctor_says_how_networks_are_fed(worker):
    release, _ = scoring.active_scorer()
    (before,) = diagnosis._tuned(release)
    keep(release.fingerprint)

    (after,) = diagnosis._tuned(release)

    assert before.state == "note"
    assert after.detail.startswith("500 tokens a batch, 1 threads: 0.50 of the usual time")
