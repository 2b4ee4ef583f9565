"""Verdicts become a release: on tiny networks, with what people said made up here."""

import os
import signal
import sys
import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from dedup import feedback, jobs, learning, releases, starting
from dedup.feedback import Label
from dedup.ml import finetuning, refitting
from dedup.ml.artifact import verify
from dedup.ml.clusters import Shortlisted
from dedup.ml.data import Labelled
from dedup.ml.finetuning import Finetuned
from dedup.ml.pairs import Pair
from dedup.ml.release import open_release
from dedup.models import Flag, Job, Release, Review, Score
from dedup.runners import RUNNERS
from dedup.texts import text_of
from support import local, outbox
from support.models import Question
from tests.dedup.ml.networks import write_base, write_parent
from tests.factories import QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
THINGS = ["door", "window", "car", "shop", "bill"]


@pytest.fixture(autouse=True)
def parent(tmp_path, settings, monkeypatch):
    """A release of tiny networks in service, folders of this test, and no broker."""
    monkeypatch.setattr(outbox, "send", lambda *_, **__: True)
    written = Shortlisted([Labelled("open the door", "open my door", 1.0),
                           Labelled("open the door", "pay the bill", 0.0)], ["", ""])  # fmt: skip
    monkeypatch.setattr("dedup.ml.measuring.shortlisted", lambda *_: written)
    settings.DEDUP_ARTIFACTS = tmp_path / "artifacts"
    settings.DEDUP_RELEASES_FOLDER = str(tmp_path / "made")
    settings.DEDUP_TRAINING_FOLDER = tmp_path / "training"
    settings.DEDUP_TRAINING_MEMORY_MB = 0  # of this very process
    write_parent(settings.DEDUP_ARTIFACTS / "tiny-1")
    return releases.activate(release=releases.add("tiny-1"))


def said(n, *, part="train", label=None, lane="flagged", share=1.0, **ids):
    """A label; whether it is a duplicate can be told by its words."""
    is_same = n % 2 == 0 if label is None else bool(label)
    first = f"open the {THINGS[n % 5]} {n % 3}"
    other = f"open my {THINGS[n % 5]}" if is_same else f"pay the {THINGS[(n + 2) % 5]} bill 1"
    return Label(
        older_id=ids.get("older_id", 10_000 + 2 * n), newer_id=ids.get("newer_id", 10_001 + 2 * n),
        pair=Pair(first, other), cosine=0.7, logit=0.0, label=float(is_same), weight=1.0,
        share=share, lane=lane, release="tiny-1", probability=0.6, by=(1,), said_at=timezone.now(),
        first_said_at=timezone.now(), part=part, segments={},
    )  # fmt: skip


def verdicts(*, train=300, tune=80, hold=60):
    return (
        [said(n) for n in range(train)]
        + [said(1000 + n, part="tune") for n in range(tune)]
        + [said(2000 + n, part="hold") for n in range(hold)]
    )


@pytest.fixture
def known(monkeypatch):
    """What people said; a test changes the list."""
    rows = verdicts()
    monkeypatch.setattr(feedback, "labels", lambda **_: list(rows))
    return rows


def trained(**params):
    starting.training(by=None, **{"minutes": 5.0, "epochs": 6, **params})
    return jobs.run(RUNNERS)


@pytest.fixture
def quick(monkeypatch):
    """No training: the network as it was, or one of chance."""

    def finetune(*, bi, start, taught, tune, replay, out, plan, progress):
        quick.taught, quick.tune, quick.replay, quick.start = taught, tune, replay, start
        progress(1, 4, "training", 9.0)
        write_base(out, seed=5)
        return Finetuned(out, 4, 1.0, 0.5, [0.5], 1.0)

    monkeypatch.setattr(learning, "finetune", finetune)
    fit = refitting.fit_calibration

    def telling(*given, **named):
        found = fit(*given, **named)
        return type(found)(found.bias, abs(found.by_logit) + 0.1, found.by_cosine, found.prior)

    monkeypatch.setattr(refitting, "fit_calibration", telling)
    return quick


@pytest.mark.usefixtures("known")
def test_what_people_said_becomes_a_release_that_proves_itself_and_is_not_in_service(
    parent, tmp_path, monkeypatch
):
    rate = finetuning.Plan(rate=1e-2, batch=8)
    monkeypatch.setattr(learning, "Plan", lambda **given: type(rate)(
        rate=1e-2, batch=8, **given))  # fmt: skip

    job = trained()

    assert job.state == Job.State.DONE, job.failure
    release = Release.objects.get(name=job.result["release"])
    assert not release.is_active
    assert releases.active() == parent
    assert release.manifest["parent"]["name"] == "tiny-1"
    assert release.manifest["labels"]["train"] == 300
    assert (release.manifest["labels"]["tune"], release.manifest["labels"]["hold"]) == (80, 60)
    assert open_release(tmp_path / "made" / release.name).fingerprint == release.fingerprint
    assert job.result["average_precision"] > 0.9
    assert not (tmp_path / "training" / f"job-{job.pk}").exists()


@pytest.mark.usefixtures("known", "quick")
def test_a_release_is_named_by_its_line_the_day_and_a_number(settings):
    names = [trained().result["release"] for _ in range(2)]

    day = f"{timezone.now():%Y%m%d}"
    assert names == [f"tiny-1-{day}-1", f"tiny-1-{day}-2"]
    assert learning.free_name(names[0], now=timezone.now()) == f"tiny-1-{day}-3"


@pytest.mark.usefixtures("known", "quick")
def test_a_name_can_be_given():
    assert trained(name="spring").result["release"] == "spring"

    with pytest.raises(starting.StartRefused, match="already"):
        starting.training(by=None, name="spring")


@pytest.mark.usefixtures("known")
def test_it_begins_from_the_network_in_service_or_afresh(quick, parent):
    trained(base="current")
    went_on = quick.start
    trained(base="base")

    assert went_on == releases.folder_of(parent) / "cross-encoder"
    assert quick.start is None


def test_labels_that_measure_teach_nothing(quick, known):
    known[:] = verdicts(train=600)
    trained()

    seen = {(one.first, one.second, one.label) for one in quick.taught + quick.tune}
    assert len(quick.taught) + len(quick.tune) == 600
    assert len(quick.tune) >= finetuning.FEWEST_JUDGES
    assert seen == {(r.pair.older, r.pair.newer, r.label) for r in known if r.part == "train"}


def test_no_question_is_learned_from_and_stopped_by(known, parent):
    known[:] = [said(n, older_id=n, newer_id=n + 1, label=n % 3 == 0) for n in range(400)]

    learned = learning.prepare(known, parent, seed=1)

    groups = learning._joined(known)
    stopped_by = {
        groups.name_of(pk)
        for row in known if learning._is_stop(row, groups)
        for pk in (row.older_id, row.newer_id)
        if learning._place(groups.name_of(pk)) < learning.STOPPED_BY
    }  # fmt: skip
    taught_of = {
        groups.name_of(pk)
        for row in known if not learning._is_stop(row, groups)
        for pk in (row.older_id, row.newer_id)
    }  # fmt: skip
    assert learned.stop
    assert not stopped_by & taught_of


def test_only_what_was_asked_by_a_known_chance_is_calibrated_on():
    rows = [
        said(1, part="tune"), said(2, part="tune", lane="sampled", share=0.02),
        said(3, part="tune", lane="chosen", share=None), said(4, part="tune", lane="merged"),
        said(5, part="hold"),
    ]  # fmt: skip

    assert [row.share for row in learning.asked(rows, "tune")] == [1.0, 0.02]


# --- What verdicts imply ----------------------------------------------------------------------


def questions(count):
    return [QuestionFactory(title=f"open the {THINGS[n % 5]} {n}", body="") for n in range(count)]


def scored(one, other, release, cosine=0.8):
    first, second = text_of(one), text_of(other)
    return Score.objects.create(
        older=one, newer=other, older_hash=first.hash, newer_hash=second.hash, release=release,
        logit=0.1, cosine=cosine, probability=0.3,
    )  # fmt: skip


def between(one, other, label):
    return said(0, older_id=one.pk, newer_id=other.pk, label=label)


def implied(rows, release, **given):
    besides = {frozenset((row.older_id, row.newer_id)) for row in rows}
    given = {"besides": besides, "without": set(), **given}
    return learning.implied(rows, learning._joined(rows), release, **given)


def test_duplicates_of_one_question_are_duplicates_of_each_other(parent):
    a, b, c = questions(3)
    scored(a, c, parent)

    found = implied([between(a, b, 1), between(b, c, 1)], parent)

    assert [(one.first, one.second, one.label) for one in found] == [
        (text_of(a).input, text_of(c).input, 1.0)
    ]
    assert found[0].weight < 1


def test_what_was_told_apart_from_a_question_is_told_apart_from_its_duplicates(parent):
    a, b, c = questions(3)
    scored(a, c, parent)

    found = implied([between(a, b, 1), between(b, c, 0)], parent)

    assert [one.label for one in found] == [0.0]


def test_a_pair_of_which_nobody_said_anything_is_no_negative(parent):
    a, b, c, d = questions(4)
    scored(a, c, parent)
    scored(b, d, parent)

    assert implied([between(a, b, 1), between(c, d, 1)], parent) == []


def test_out_of_a_group_that_people_disagree_about_nothing_follows(parent):
    a, b, c = questions(3)
    scored(a, c, parent)

    assert implied([between(a, b, 1), between(b, c, 1), between(a, c, 0)], parent) == []


def test_nothing_follows_for_a_question_that_measures(parent):
    a, b, c = questions(3)
    scored(a, c, parent)

    assert implied([between(a, b, 1), between(b, c, 1)], parent, without={c.pk}) == []


# --- What is not to be forgotten --------------------------------------------------------------


def test_replayed_are_pairs_that_nobody_judged_where_the_logit_counts(parent):
    a, b, c, d = questions(4)
    judged, unlike, other = scored(a, b, parent), scored(a, c, parent, 0.2), scored(a, d, parent)
    changed = scored(b, d, parent)
    Score.objects.filter(pk=changed.pk).update(older_hash="x" * 64)

    found = learning.replayed(parent, 50, besides={frozenset((a.pk, b.pk))}, seed=1)

    assert found == [Pair(text_of(a).input, text_of(d).input)]
    assert {judged.release, unlike.release, other.release} == {parent}


def test_the_same_seed_replays_the_same_pairs(parent):
    rows = questions(30)
    for n, one in enumerate(rows):
        for other in rows[n + 1 : n + 6]:
            scored(one, other, parent)

    drawn = [learning.replayed(parent, 20, besides=set(), seed=seed) for seed in (1, 1, 2)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 20


# --- What cannot be done is said --------------------------------------------------------------


MISSING = (
    "More verdicts on pairs that were flagged or drawn are needed: about 267, at least 14 of them"
    " on duplicates and 14 on pairs that are none. One in 7 is kept to calibrate on: 20 so far,"
    " where it takes 60."
)


def test_with_too_few_verdicts_no_training_begins_and_what_is_missing_is_said(known):
    known[:] = verdicts(tune=20)

    with pytest.raises(starting.TooFewVerdicts) as refused:
        starting.training(by=None)

    assert str(refused.value) == MISSING
    assert not Job.objects.exists()


def test_of_one_kind_alone_it_says_which_other_is_missing(known):
    known[:] = [said(n, part="tune", label=1) for n in range(90)]

    with pytest.raises(starting.TooFewVerdicts) as refused:
        starting.require_verdicts(known)

    details = refused.value.details
    assert (details["all"], details["duplicates"], details["others"]) == (80, 0, 80)


def test_verdicts_that_were_taken_back_since_end_the_training_in_the_same_words(known):
    starting.training(by=None)
    known[:] = verdicts(tune=20)

    job = jobs.run(RUNNERS)

    assert (job.state, job.failure) == (Job.State.FAILED, MISSING)


def test_verdicts_of_one_kind_teach_nothing(known):
    known[:] = [row for row in known if row.part != "train" or row.label]

    assert "all verdicts to learn from say the same" in trained().failure.lower()


@pytest.mark.usefixtures("known")
def test_without_a_release_there_is_nothing_to_begin_from():
    Release.objects.update(is_active=False)

    assert "No release is in service" in trained().failure


@pytest.mark.usefixtures("known")
def test_a_release_whose_files_were_changed_is_not_gone_on_from(parent):
    (releases.folder_of(parent) / "cross-encoder/config.json").write_text("{}")

    assert "not what they were" in trained().failure


@pytest.mark.usefixtures("known")
def test_a_folder_that_cannot_be_written_to_is_named(settings, tmp_path):
    (tmp_path / "file").write_text("")
    settings.DEDUP_RELEASES_FOLDER = str(tmp_path / "file" / "made")

    failure = trained().failure

    assert "DEDUP_RELEASES_FOLDER" in failure
    assert settings.DEDUP_RELEASES_FOLDER in failure


@pytest.mark.usefixtures("known")
def test_a_training_that_becomes_unstable_says_what_to_try(monkeypatch):
    def unstable(**_):
        raise FloatingPointError("loss is nan at step 3")

    monkeypatch.setattr(learning, "finetune", unstable)

    assert "try another seed" in trained().failure


@pytest.mark.usefixtures("known", "quick")
def test_a_network_that_learned_nothing_makes_no_release(monkeypatch):
    def refuse(*_, **__):
        raise refitting.RefitRefused("tells_nothing")

    monkeypatch.setattr(refitting, "calibrate", refuse)

    job = trained()

    assert "tells nothing on verdicts that it did not learn from" in job.failure
    assert Release.objects.count() == 1


@pytest.mark.usefixtures("known")
def test_a_training_that_is_stopped_leaves_no_folder(monkeypatch, tmp_path):
    def stopped(*, out, progress, **_):
        out.mkdir(parents=True)
        jobs.stop(job=Job.objects.get(), by=None)
        progress(1, 2, "training, loss 0.1", None)

    monkeypatch.setattr(learning, "finetune", stopped)

    assert trained().state == Job.State.STOPPED
    assert list((tmp_path / "training").iterdir()) == []


@pytest.mark.usefixtures("known", "quick")
def test_a_run_that_died_after_it_wrote_the_release_is_finished_by_another(monkeypatch):
    add = releases.add
    monkeypatch.setattr(releases, "add", lambda name: (_ for _ in ()).throw(SystemExit()))
    starting.training(by=None)
    with pytest.raises(SystemExit):
        jobs.run(RUNNERS)
    monkeypatch.setattr(releases, "add", add)

    job = jobs.run(RUNNERS)

    assert job.state == Job.State.DONE, job.failure
    assert Release.objects.filter(name__startswith="tiny-1-").count() == 1


# --- What may be asked for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"base": "mine"}, "base"), ({"epochs": 0}, "epochs"), ({"epochs": 99}, "epochs"),
        ({"minutes": 61}, "minutes"), ({"minutes": 0}, "minutes"), ({"seed": -1}, "seed"),
        ({"precision": 1.0}, "precision"), ({"name": "../up"}, "name"), ({"name": "A b"}, "name"),
        ({"name": "tiny-1"}, "name"),
    ],
)  # fmt: skip
def test_a_training_that_cannot_be_is_refused_before_it_waits(given, field):
    with pytest.raises(starting.StartRefused) as refused:
        starting.training(by=None, **given)

    assert refused.value.field == field
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "checkpoint",
    ["../../etc", "/etc", "tiny/../..", "a/b/c", "", ".hidden/x", "un known", "linked"],
)
def test_a_checkpoint_elsewhere_on_this_machine_is_not_reached(checkpoint, settings, tmp_path):
    settings.DEDUP_CHECKPOINTS = str(tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "theirs").mkdir(parents=True)
    (tmp_path / "checkpoints" / "linked").symlink_to(tmp_path)

    with pytest.raises(starting.StartRefused):
        starting.source_of(checkpoint)

    assert starting.source_of("theirs") == str(tmp_path / "checkpoints" / "theirs")
    assert starting.source_of("owner/some-name") == "owner/some-name"


def test_a_wanted_precision_moves_the_others_with_it(parent):
    parent.manifest = {"thresholds": {
        name: {"chosen": {"wanted_precision": at}}
        for name, at in {"flag": 0.4, "suggest": 0.05, "sure": 0.5}.items()
    }}  # fmt: skip

    assert learning.wanted_precisions(parent.manifest)["flag"] == 0.4
    assert learning.wanted_precisions(parent.manifest, 0.9) == {
        "flag": 0.9,
        "suggest": 0.05,
        "sure": 0.9,
    }


# --- Killed, told to end, taken up again ------------------------------------------------------

RUN = """
import os, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "support.settings"
import django
django.setup()
from django.core.management import call_command
from dedup.ml import finetuning, fitting, measuring
from dedup.ml.clusters import Shortlisted
from dedup.ml.data import Labelled
finetuning.KEPT_EVERY = 0.0
os.nice = lambda by: 0
loss_of, pause = fitting.loss_of, float(sys.argv[1])
fitting.loss_of = lambda *given: (time.sleep(pause), loss_of(*given))[1]
rows = [Labelled("open the door", "open my door", 1.0), Labelled("open the door", "pay", 0.0)]
measuring.shortlisted = lambda *_: Shortlisted(rows, ["", ""])
call_command("run_job")
"""


def decided(release, count):
    """Pairs that agents decided, as they lie in the database."""
    by = UserFactory()
    product = QuestionFactory().product
    asked = Question.objects.bulk_create(
        Question(
            product=product, asked_by=by, language="en",
            title=one.pair.older if end == 0 else one.pair.newer,
        )
        for one in (said(n) for n in range(count)) for end in (0, 1)
    )  # fmt: skip
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    hashes = [{"older_hash": text_of(a).hash, "newer_hash": text_of(b).hash} for a, b in pairs]
    flags = Flag.objects.bulk_create(
        Flag(older=a, newer=b, probability=0.6, release=release, **hashed)
        for (a, b), hashed in zip(pairs, hashes, strict=True)
    )
    Review.objects.bulk_create(
        Review(
            flag=flag, by=by, probability=0.6, release=release.name, **hashed,
            verdict="dismissed" if n % 2 else "confirmed",
        )
        for n, (flag, hashed) in enumerate(zip(flags, hashes, strict=True))
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_training_that_is_killed_and_told_to_end_goes_on_where_it_was(parent, tmp_path, settings):
    decided(parent, 600)
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    environ = os.environ | {
        "DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}",
        "DEDUP_ARTIFACTS": str(settings.DEDUP_ARTIFACTS),
        "DEDUP_RELEASES_FOLDER": settings.DEDUP_RELEASES_FOLDER,
        "DEDUP_TRAINING_FOLDER": str(settings.DEDUP_TRAINING_FOLDER), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    job = starting.training(by=None, epochs=4)
    kept = settings.DEDUP_TRAINING_FOLDER / f"job-{job.pk}" / "network" / "checkpoint.safetensors"
    log = tmp_path / "log"

    def begin(pause):
        return local.spawn([sys.executable, "-c", RUN, str(pause)], log=log, env=environ)

    def until_kept(child, after=0.0):
        deadline = time.monotonic() + 180
        while not (kept.exists() and kept.stat().st_mtime > after):
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    child = begin(0.2)
    until_kept(child)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.RUNNING, 1)
    Job.objects.update(seen_at=timezone.now() - 2 * jobs.SILENT)

    child = begin(0.2)
    until_kept(child, after=kept.stat().st_mtime)
    child.send_signal(signal.SIGTERM)
    child.wait(120)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.WAITING, 1)

    assert begin(0).wait(300) == 0, log.read_text()

    job.refresh_from_db()
    assert (job.state, job.attempts) == (Job.State.DONE, 2), (job.failure, log.read_text())
    assert log.read_text().count("going on from step") == 2
    assert verify(tmp_path / "made" / job.result["release"])
    assert not kept.parent.parent.exists()


# --- By hand ----------------------------------------------------------------------------------


def by_hand(*options):
    out = StringIO()
    call_command("train", *options, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("known", "quick")
def test_the_command_trains_here_and_says_what_came_of_it():
    said_of_it = by_hand("--epochs", "2", "--name", "spring")

    job = Job.objects.get()
    assert (job.state, job.params["epochs"], job.by) == (Job.State.DONE, 2, None)
    assert "spring is a release now, not in service. On 60 decisions held back" in said_of_it


@pytest.mark.usefixtures("known")
def test_the_command_can_only_put_it_in_line():
    assert "waits" in by_hand("--background", "--from", "base")
    assert Job.objects.get().state == Job.State.WAITING


@pytest.mark.usefixtures("known")
def test_the_command_says_at_once_how_many_verdicts_are_missing(known):
    known[:] = verdicts(tune=3)

    with pytest.raises(CommandError, match="about 380, at least 67 of them on duplicates and 74"):
        by_hand()

    assert not Job.objects.exists()


def test_the_command_refuses_what_the_page_refuses():
    with pytest.raises(CommandError, match="between 0 and 1"):
        by_hand("--precision", "3")


def test_the_command_starts_no_second_training():
    jobs.start(kind=Job.Kind.TRAIN, by=None)

    with pytest.raises(CommandError, match="waits or runs already"):
        by_hand()


@pytest.mark.usefixtures("known")
def test_ctrl_c_leaves_it_in_line(monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "finetune", interrupted)

    with pytest.raises(CommandError, match="run_job goes on"):
        by_hand()

    assert Job.objects.get().state == Job.State.WAITING
