"""Releases measured on what people said here: by a job, by the command, kept as a report."""

import json
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from dedup import evaluating, feedback, jobs, releases, reports
from dedup.ml import release as ml_release
from dedup.ml import reporting
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.pairs import Pair
from dedup.models import Job, Release, Report
from tests.dedup.folders import write_release
from tests.factories import QuestionFactory, ReleaseFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db
NOW = timezone.now()
RUNNERS = {Job.Kind.EVALUATE: evaluating.evaluate}


@pytest.fixture(autouse=True)
def folders(tmp_path, settings):
    settings.DEDUP_ARTIFACTS = tmp_path / "artifacts"
    settings.LOCAL_FOLDER = tmp_path / "local"
    return settings.DEDUP_ARTIFACTS


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Folders that were opened; in place of networks, one that sees shared words."""
    found = []

    def open_fake(folder, **_):
        found.append(folder.name)
        fake = FakeScorer()
        fake.cross = SimpleNamespace(dtype="torch.float32")
        return fake

    monkeypatch.setattr(ml_release, "open_release", open_fake)
    return found


@pytest.fixture
def active(folders):
    write_release(folders, "one")
    return releases.activate(release=releases.add("one"))


@pytest.fixture
def other(folders):
    write_release(folders, "two", note="other")
    return releases.add("two")


def said(number, label, **changes):
    """What somebody said of a pair, as dedup.feedback tells it."""
    words = "dark lamp" if label else "other words"
    known = {
        "older_id": 2 * number, "newer_id": 2 * number + 1,
        "pair": Pair(f"dark lamp {number}", f"{words} {number}"), "cosine": None, "logit": None,
        "label": float(label), "weight": 1.0, "share": 1.0, "lane": "flagged", "release": "one",
        "probability": 0.5, "by": (1,), "said_at": NOW, "first_said_at": NOW, "part": "hold",
        "segments": {"product": "lamp", "language": "en"},
    }  # fmt: skip
    return feedback.Label(**known | changes)


@pytest.fixture
def judged_pairs(monkeypatch):
    """Pairs that people judged, of both kinds."""
    labels = [said(i, label=i % 3 == 0) for i in range(120)]
    monkeypatch.setattr(feedback, "labels", lambda: labels)
    return labels


@pytest.fixture
def rung(monkeypatch):
    monkeypatch.setattr(jobs, "ring", lambda: True)


def start(release):
    return jobs.start(kind=Job.Kind.EVALUATE, params={"release": release.pk}, by=None)


class TestPairs:
    def test_only_held_pairs_count_whose_chance_of_being_asked_is_known(self, judged_pairs):
        judged_pairs[:] = [
            said(1, label=1),
            said(2, label=0, lane="sampled", share=0.05),
            said(3, label=1, part="train"),
            said(4, label=1, part="tune"),
            said(5, label=1, part=""),
            said(6, label=1, lane="chosen", share=None),
            said(7, label=1, lane="merged", share=None),
        ]

        held = evaluating.held_pairs()

        assert [pair.older for pair in held.pairs] == ["dark lamp 1", "dark lamp 2"]
        assert held.weights.tolist() == [1.0, 20.0]
        assert held.labels.tolist() == [1.0, 0.0]

    def test_pairs_of_one_question_and_of_its_duplicates_are_one_cluster(self):
        labels = [
            said(0, label=1, older_id=1, newer_id=2),
            said(1, label=0, older_id=3, newer_id=2),
            said(2, label=1, older_id=8, newer_id=9),
        ]
        first, second, third = evaluating.clusters_of(labels)

        assert first == second != third


class TestJobs:
    def test_a_job_measures_a_release_beside_the_one_in_service(
        self, active, other, judged_pairs, opened, rung
    ):
        start(other)
        done = jobs.run(RUNNERS)
        report = Report.objects.get()

        assert (done.state, done.failure) == (Job.State.DONE, "")
        assert done.result == {"report": report.pk, "release": "two"}
        assert opened == ["two", "one"]
        assert (report.release, report.against) == (other, active)
        own = report.figures["own"]
        assert (own["pairs"], own["duplicates"]) == (120, 40)
        assert own["figures"]["average_precision"]["value"] == 1.0
        assert own["leads"]["average_precision"]["value"] == 0.0
        assert own["threshold"] == other.threshold
        folder = evaluating.reports_folder() / report.folder
        assert json.loads((folder / "report.json").read_text()) == report.figures

    def test_the_one_in_service_is_held_against_the_one_before_it(self, active, other):
        assert evaluating.rival(active) is None
        releases.activate(release=other)
        other.refresh_from_db()
        active.refresh_from_db()

        assert evaluating.rival(other) == active
        assert evaluating.rival(active) == other

    def test_where_the_rivals_files_are_gone_it_is_measured_alone(
        self, active, other, judged_pairs, folders, rung
    ):
        write_release(folders, "one", note="changed")
        start(other)
        jobs.run(RUNNERS)

        assert Report.objects.get().against is None

    def test_a_release_whose_files_changed_is_not_measured(self, active, folders, opened, rung):
        write_release(folders, "one", note="changed")
        start(active)
        done = jobs.run(RUNNERS)

        assert done.state == Job.State.FAILED
        assert releases.OTHER_FILES in done.failure
        assert not opened
        assert not Report.objects.exists()

    def test_somebody_stops_it_on_the_way(self, active, judged_pairs, rung, monkeypatch):
        monkeypatch.setattr(jobs, "EVERY_SECONDS", 0.0)
        job = start(active)
        Job.objects.filter(pk=job.pk).update(is_to_stop=False)
        judge = reporting.judged

        def stopped_meanwhile(*given):
            jobs.stop(job=job, by=None)
            return judge(*given)

        monkeypatch.setattr(reporting, "judged", stopped_meanwhile)

        assert jobs.run(RUNNERS).state == Job.State.STOPPED
        assert not Report.objects.exists()

    def test_without_labels_the_report_says_how_many_it_takes(self, active, rung):
        QuestionFactory()
        start(active)
        jobs.run(RUNNERS)
        figures = Report.objects.get().figures

        assert figures["own"]["figures"] == {}
        assert figures["own"]["fewest"]["pairs"] == reporting.FEWEST_PAIRS
        assert figures["speed"]["pairs_a_second"] > 0
        assert figures["speed"]["processor"]

    def test_where_no_folder_can_be_written_the_report_is_kept_all_the_same(
        self, active, rung, settings, tmp_path
    ):
        settings.LOCAL_FOLDER = tmp_path / "a file"
        settings.LOCAL_FOLDER.write_text("")
        QuestionFactory()
        start(active)

        assert jobs.run(RUNNERS).state == Job.State.DONE
        assert Report.objects.get().folder == ""


def test_a_report_compares_with_another_release_only(active):
    with pytest.raises(IntegrityError, match="report_against_another"), transaction.atomic():
        Report.objects.create(release=active, against=active, figures={})


def test_the_newest_report_is_shown(active):
    for hours in (2, 1, 3):
        made_at = NOW - timedelta(hours=hours)
        Report.objects.create(release=active, figures={"hours": hours}, made_at=made_at)
    Report.objects.create(release=ReleaseFactory(), figures={})

    assert reports.newest(active).figures == {"hours": 1}
    assert reports.newest(ReleaseFactory()) is None


class TestCommand:
    def test_measures_by_name_and_keeps_a_report(self, active, other, judged_pairs, capsys):
        call_command("evaluate", "two", "--against", "one", "--json")
        figures = json.loads(capsys.readouterr().out)

        assert figures["own"]["against"]["release"] == "one"
        assert Report.objects.get().figures == figures

    def test_shows_figures_segments_and_speed(self, active, judged_pairs, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        QuestionFactory()
        call_command("evaluate", "one", "--own")
        shown = capsys.readouterr().out

        assert "120 own pairs, 40 of them duplicates" in shown
        assert "product: lamp" in shown
        assert "pairs a second" in shown

    def test_a_folder_that_is_no_release_here_is_measured_and_not_kept(
        self, judged_pairs, tmp_path, capsys
    ):
        folder = write_release(tmp_path, "elsewhere")
        call_command("evaluate", str(folder), "--out", str(tmp_path / "out"), "--json")

        assert json.loads(capsys.readouterr().out)["release"] == "elsewhere"
        assert (tmp_path / "out" / "report.md").exists()
        assert not Report.objects.exists()

    def test_measures_on_fixed_sets_alone(self, active, monkeypatch, capsys, tmp_path):
        row = {"rows": 3, "metric": "AP", "release": 0.9, "cosine": 0.8, "tfidf": 0.7}
        monkeypatch.setattr(evaluating, "_on_sets", lambda *_: {"sets": {"lamps": row}})
        call_command("evaluate", "one", "--data", str(tmp_path))
        shown = capsys.readouterr().out

        assert "lamps" in shown
        assert "own pairs" not in shown
        assert not Report.objects.exists()

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (["nothing"], "manifest.json cannot be read"),
            (["one", "--against", "one"], "itself"),
            (["one", "--out", "."], "already"),
        ],
    )
    def test_says_what_is_wrong(self, active, given, why):
        with pytest.raises(CommandError, match=why):
            call_command("evaluate", *given)


class TestFiles:
    def test_a_zip_has_what_the_manifest_lists_and_nothing_else(self, active, folders, tmp_path):
        (folders / "one" / "notes.txt").write_text("private")
        (folders / "one" / "run.py").write_text("import os")
        archive = tmp_path / "one.zip"
        archive.write_bytes(b"".join(reports.zipped(reports.files_of(active), "one")))

        import zipfile  # noqa: PLC0415

        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            names = set(opened.namelist())
            assert opened.read("one/README.md") == (folders / "one" / "README.md").read_bytes()
        assert names == {f"one/{name}" for name in [*active.manifest["files"], "manifest.json"]}

    def test_no_link_and_nothing_outside_the_folder_is_taken_in(self, active, folders, tmp_path):
        (tmp_path / "secret.txt").write_text("secret")
        (folders / "one" / "README.md").unlink()
        (folders / "one" / "README.md").symlink_to(tmp_path / "secret.txt")
        files = dict.fromkeys([*active.manifest["files"], "../../secret.txt", "a.py"], "")
        Release.objects.filter(pk=active.pk).update(manifest={"files": files})
        active.refresh_from_db()
        names = [name for _path, name in reports.files_of(active)]

        assert "README.md" not in names
        assert "../../secret.txt" not in names
        assert "a.py" not in names
        assert "manifest.json" in names

    def test_where_the_folder_holds_another_release_nothing_is_given_out(self, active, folders):
        write_release(folders, "one", note="changed")

        assert reports.files_of(active) == []
        assert reports.card_of(active) == ""
        assert not reports.has_files(active)


def test_a_subject_takes_the_threshold_as_it_stands_or_as_it_came(active, tmp_path):
    Release.objects.update(threshold=0.33)
    elsewhere = write_release(tmp_path, "elsewhere", threshold=0.7)

    assert evaluating.Subject.named("one").threshold == 0.33
    assert evaluating.Subject.named(str(elsewhere)).threshold == 0.7
    with pytest.raises(ArtifactRefused):
        evaluating.Subject.named("nothing")


def test_weights_of_held_pairs_are_finite(judged_pairs):
    judged_pairs[:] = [said(i, label=i % 2, share=0.001) for i in range(4)]

    assert np.isfinite(evaluating.held_pairs().weights).all()
