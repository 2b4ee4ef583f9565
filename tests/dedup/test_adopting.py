"""A checkpoint becomes a release in the background, calibrated on what people decided here."""

import pytest

from dedup import adopting, feedback, jobs, releases, starting
from dedup.ml import refitting
from dedup.ml.calibration import Calibration
from dedup.ml.release import open_release
from dedup.models import Job, Release
from dedup.runners import RUNNERS
from tests.dedup.ml.networks import write_base
from tests.dedup.test_add_release import distilbert
from tests.dedup.test_learning import known, parent, quick, said  # noqa: F401 - fixtures

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def checkpoints(tmp_path, settings):
    """A folder that checkpoints may be taken from, with one."""
    settings.DEDUP_CHECKPOINTS = str(tmp_path / "checkpoints")
    write_base(tmp_path / "checkpoints" / "theirs", seed=7)
    return tmp_path / "checkpoints"


def adopted(**given):
    starting.adopting(by=None, **{"checkpoint": "theirs", **given})
    return jobs.run(RUNNERS)


@pytest.mark.usefixtures("known", "quick")
def test_it_is_calibrated_on_what_people_decided_here(tmp_path):
    job = adopted(languages=["en", "de"])

    assert job.state == Job.State.DONE, job.failure
    release = Release.objects.get(name="theirs")
    assert not release.is_active
    assert release.manifest["calibration"]["rows"] == 190  # half of what was not held back
    assert release.manifest["languages"] == ["en", "de"]
    assert open_release(tmp_path / "made" / "theirs").calibration.low == Calibration.low
    card = (tmp_path / "made" / "theirs" / "README.md").read_text()
    assert "trained by others" in card
    assert "held verdicts" in card


@pytest.mark.usefixtures("known", "quick")
def test_of_another_kind_of_network_too(checkpoints):
    distilbert(checkpoints / "other")

    assert adopted(checkpoint="other").state == Job.State.DONE
    assert not refitting.can_go_on(releases.made_folder() / "other")


@pytest.mark.usefixtures("known")
def test_what_cannot_be_used_is_said_with_the_reason(checkpoints):
    distilbert(checkpoints / "two", labels=2)

    job = adopted(checkpoint="two")

    assert job.state == Job.State.FAILED
    assert "cannot be used: it gives 2 logits" in job.failure.replace(f"{checkpoints}/two: ", "")
    assert Release.objects.count() == 1


@pytest.mark.usefixtures("known", "quick")
def test_a_score_that_tells_nothing_here_makes_no_release(monkeypatch):
    def refuse(*_, **__):
        raise refitting.RefitRefused("tells_nothing")

    monkeypatch.setattr(refitting, "calibrate", refuse)

    assert "tells nothing on what people decided here" in adopted().failure


def test_a_name_on_the_hub_is_no_way_into_a_folder(monkeypatch, tmp_path):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert "neither a folder" in adopted(checkpoint="owner/name").failure


def test_few_verdicts_leave_it_to_questions_of_our_own(monkeypatch):
    monkeypatch.setattr(feedback, "labels", lambda **_: [said(n) for n in range(10)])
    taken = []

    def adopt(source, like, labels, out, languages):
        taken.append((source, like.name, labels, out.name, languages))
        return {}

    monkeypatch.setattr(adopting.adopting, "adopt", adopt)

    adopting.take("theirs", name="new", like=releases.folder_named("tiny-1"), languages=["en"])

    assert taken == [("theirs", "tiny-1", [], "new", ["en"])]
