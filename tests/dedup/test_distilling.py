"""Students out of a portal's own pairs: on tiny networks."""

from datetime import timedelta
from itertools import combinations

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from dedup import distilling, feedback, jobs, releases, starting
from dedup.management.commands.distil import Command
from dedup.ml import distilling as networks
from dedup.ml.clusters import Shortlisted
from dedup.ml.data import Labelled
from dedup.ml.release import open_release
from dedup.models import Job, Release, Score
from dedup.runners import RUNNERS
from dedup.texts import text_of
from support import outbox
from tests.dedup.ml.networks import write_data, write_parent
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db
THINGS = ["door", "window", "car", "shop", "bill"]


@pytest.fixture(autouse=True)
def parent(tmp_path, settings, monkeypatch):
    """A release of tiny networks in service that was asked about some pairs, and no broker."""
    monkeypatch.setattr(outbox, "send", lambda *_, **__: True)
    monkeypatch.setattr(feedback, "labels", lambda **_: [])
    monkeypatch.setattr(networks, "FEWEST", 40)
    written = Shortlisted(
        [Labelled("open the door", f"{verb} my {thing}", float(verb == "open"))
         for verb in ("open", "pay") for thing in THINGS], [""] * 10,
    )  # fmt: skip
    for module in ("measuring", "adopting"):
        monkeypatch.setattr(f"dedup.ml.{module}.shortlisted", lambda *_: written)
    monkeypatch.setattr("dedup.ml.adopting.portal_shortlisted", lambda *_: written)
    settings.DEDUP_ARTIFACTS = tmp_path / "artifacts"
    settings.DEDUP_TRAINING_FOLDER = tmp_path / "training"
    write_parent(settings.DEDUP_ARTIFACTS / "tiny-1", layers=2)
    release = releases.activate(release=releases.add("tiny-1"))
    asked_about(release)
    return release


def asked_about(release):
    """45 pairs of ten questions, all of which the release hears its logit of."""
    questions = [
        QuestionFactory(title=f"{verb} the {thing}", body="")
        for verb in ("open", "close") for thing in THINGS
    ]  # fmt: skip
    texts = [text_of(question) for question in questions]
    Score.objects.bulk_create(
        Score(older_id=one.question_id, newer_id=other.question_id, older_hash=one.hash,
              newer_hash=other.hash, release=release, logit=0.1, cosine=0.8, probability=0.2)
        for one, other in combinations(texts, 2)
    )  # fmt: skip


def distilled(**params):
    starting.distilling(by=None, **{"minutes": 5.0, "layers": 1, **params})
    return jobs.run(RUNNERS)


def test_a_student_is_made_of_the_portals_own_pairs_and_is_not_in_service(
    parent, settings, tmp_path
):
    job = distilled()

    assert job.state == Job.State.DONE, job.failure
    release = Release.objects.get(name="tiny-1-student")
    assert (job.result["release"], job.result["teacher"]) == (release.name, "tiny-1")
    assert (job.result["layers"], job.result["pairs"]) == (1, 45)
    assert releases.active() == parent
    assert release.embedding_fingerprint == parent.embedding_fingerprint
    assert release.manifest["teacher"]["fingerprint"] == parent.fingerprint
    assert open_release(settings.DEDUP_ARTIFACTS / release.name).fingerprint == release.fingerprint
    assert not list((tmp_path / "training").glob("*"))


def test_the_command_says_what_it_made_and_how_it_is_used(capsys):
    call_command("distil", layers=1, name="small-1")

    said = capsys.readouterr().out
    assert "small-1 is a release now: 1 layers, from 45 pairs" in said
    assert "DEDUP_CASCADE=small-1" in said
    assert Job.objects.get().state == Job.State.DONE


def test_the_command_learns_from_a_folder_of_texts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "training_names", list)
    data = write_data(tmp_path / "data")

    call_command("distil", layers=1, data=data, name="small-1")

    manifest = Release.objects.get(name="small-1").manifest
    assert set(manifest["data"]) >= {"qqp_train", "rqe_train"}
    assert manifest["recipe"]["distilled"]["pairs"] != 45


def test_a_worker_does_not_do_what_needs_a_folder_that_only_the_command_knows():
    job = distilled(has_data=True)

    assert job.state == Job.State.FAILED
    assert "give that command again" in job.failure


def test_too_few_pairs_are_said_in_words(monkeypatch):
    monkeypatch.setattr(networks, "FEWEST", 50)

    job = distilled()

    assert job.state == Job.State.FAILED
    assert "there are 45, and it takes 50" in job.failure


def test_a_student_has_no_more_layers_than_its_teacher():
    assert "one layer to 2" in distilled(layers=3).failure
    with pytest.raises(starting.StartRefused, match="at least one"):
        starting.distilling(by=None, layers=0)


def test_a_student_is_named_after_its_teacher_with_a_number_where_that_is_taken(settings):
    (settings.DEDUP_ARTIFACTS / "tiny-1-student").mkdir()

    assert starting.distilling(by=None).params["name"] == "tiny-1-student-2"


def test_one_is_made_at_a_time_and_what_died_is_taken_up_again(capsys):
    job = starting.distilling(by=None, layers=1, minutes=5.0)
    running = jobs.claim(kinds=[Job.Kind.DISTIL], now=timezone.now())
    with pytest.raises(CommandError, match="waits or runs"):
        call_command("distil", layers=1)

    Job.objects.filter(pk=job.pk).update(seen_at=timezone.now() - timedelta(minutes=5))
    call_command("distil", layers=1)

    job.refresh_from_db()
    assert (job.state, job.attempts, running.job.pk) == (Job.State.DONE, 2, job.pk)


def test_an_end_that_was_asked_for_leaves_no_files(tmp_path):
    job = starting.distilling(by=None, layers=1, minutes=5.0)
    held = jobs.claim(kinds=[Job.Kind.DISTIL], now=timezone.now())
    Job.objects.filter(pk=job.pk).update(is_to_stop=True)

    ended = jobs.do(held, {Job.Kind.DISTIL: distilling.distil})

    assert ended.state == Job.State.STOPPED
    assert not list((tmp_path / "training").glob("*"))


def test_the_command_says_each_step_and_what_is_left(capsys):
    say = Command()._said()
    for left in (90.0, 80.0):
        say(3, 9, "training, loss 0.5", left)

    assert capsys.readouterr().out.splitlines() == ["training, loss 0.5: 3 of 9, 2 minutes left"]
