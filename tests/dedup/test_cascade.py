import logging

import pytest

from dedup import cascade, checks, pipeline, releases, scoring
from dedup.management import diagnosis
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.cascade import Cascade
from dedup.ml.pairs import Judged
from dedup.models import Score
from dedup.texts import text_of
from support import outbox
from tests.dedup.folders import write_release, write_student
from tests.dedup.readers import reader
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def release(tmp_path, settings, monkeypatch):
    """A release in service that a student reads before; no network of either is opened."""
    settings.DEDUP_ARTIFACTS, settings.DEDUP_CASCADE = tmp_path, "student"
    monkeypatch.setattr(scoring, "_student", None)
    monkeypatch.setattr(scoring, "_refused", {})
    write_release(tmp_path, "teacher")
    release = releases.activate(release=releases.add("teacher"))
    write_student(tmp_path, release)
    return release


@pytest.fixture
def opened(release, tmp_path, monkeypatch):
    """The scorer of the release; students are opened as fakes, and counted."""
    scorer = reader(tmp_path / "teacher")
    scorer.opened = []

    def open_fake(folder, *, threads, beside):
        scorer.opened.append(folder.name)
        releases.verify(folder)
        assert beside is scorer
        return reader(folder, by=0.5)

    monkeypatch.setattr(scoring, "open_release", open_fake)
    return scorer


def refused(release):
    with pytest.raises(ArtifactRefused) as caught:
        cascade.student_of(release)
    return str(caught.value)


def test_a_student_reads_before_the_release_that_it_learned_from(release, opened):
    found = scoring.with_student(release, opened)
    again = scoring.with_student(release, opened)

    assert isinstance(found, Cascade)
    assert (found.teacher, found.floor, again.student) == (opened, 0.1, found.student)
    assert opened.opened == ["student"]


def test_without_a_student_the_release_reads_all(release, opened, settings):
    settings.DEDUP_CASCADE = ""

    assert scoring.with_student(release, opened) is opened


def test_a_missing_student_is_logged_once_a_minute_and_the_release_reads_all(
    release, opened, settings, caplog
):
    settings.DEDUP_CASCADE = "nowhere"

    with caplog.at_level(logging.ERROR):
        found = [scoring.with_student(release, opened) for _ in range(3)]

    assert found == [opened] * 3
    assert len(caplog.records) == 1
    assert "teacher reads all" in caplog.text


def test_a_student_whose_files_changed_is_refused(release, opened, tmp_path):
    (tmp_path / "student" / "README.md").write_text("other")

    assert scoring.with_student(release, opened) is opened


def test_a_student_of_another_release_is_refused(release, tmp_path):
    write_release(tmp_path, "other")
    other = releases.activate(release=releases.add("other"))

    assert "learned from teacher" in refused(other)


def test_a_student_with_another_bi_encoder_is_refused_whatever_its_floor(
    release, tmp_path, settings
):
    write_student(tmp_path, release, "foreign", note="other")
    settings.DEDUP_CASCADE = "foreign"

    for settings.DEDUP_CASCADE_FLOOR in (None, 0.05):
        assert "bi-encoder" in refused(release)


def test_a_floor_that_was_chosen_for_a_higher_threshold_holds_no_longer(release):
    release.threshold = 0.7

    assert "chosen for a threshold of 80.0 %" in refused(release)


def test_a_student_without_a_floor_is_refused_until_the_operator_gives_one(
    release, tmp_path, settings
):
    write_student(tmp_path, release, floor=0.0)
    assert "500 held pairs" in refused(release)
    settings.DEDUP_CASCADE = "teacher"
    assert refused(release) == cascade.NO_STUDENT

    settings.DEDUP_CASCADE_FLOOR = 0.05

    assert cascade.student_of(release).floor == 0.05


def test_a_student_never_settles_what_might_be_flagged(release, settings):
    settings.DEDUP_CASCADE_FLOOR = 0.95

    assert cascade.student_of(release).floor == release.threshold == 0.8


@pytest.mark.parametrize("floor", [0.0, 1.0, -0.1, float("nan")])
def test_a_floor_is_a_share(settings, floor):
    settings.DEDUP_CASCADE_FLOOR = floor

    assert [message.id for message in checks.check_settings()] == ["dedup.E011"]


def test_a_student_that_is_none_is_warned_of(release, settings):
    assert checks.check_cascade() == []
    for settings.DEDUP_CASCADE in ("nowhere", "teacher"):
        assert [message.id for message in checks.check_cascade()] == ["dedup.W012"]


def test_the_doctor_says_who_reads_first(release, tmp_path, settings):
    (good,) = diagnosis._cascade(release)
    assert (good.state, good.detail) == (
        "good", "student reads first, and is believed below 0.1000",
    )  # fmt: skip
    (tmp_path / "student" / "README.md").write_text("other")

    (changed,) = diagnosis._cascade(release)

    assert changed.state == "note"
    assert "the release reads all: README.md has another sha256" in changed.detail
    settings.DEDUP_CASCADE = ""
    assert list(diagnosis._cascade(release)) == []


def test_a_check_keeps_who_settled_a_pair_under_the_release_in_service(
    release, opened, monkeypatch
):
    monkeypatch.setattr(scoring, "active_scorer", lambda: (release, opened))
    for logit in (9, -9):
        outbox.put(QuestionFactory(title=f"My lamp is dark {logit}", body=""))

    pipeline.check_waiting(limit=10)

    score = Score.objects.get()
    assert (score.release, score.settled_by, score.logit) == (release, "student", None)


def test_what_a_student_settled_is_asked_again(release, opened):
    older, newer = (text_of(question) for question in QuestionFactory.create_batch(2))
    Score.objects.create(
        older_id=older.question_id, newer_id=newer.question_id, older_hash=older.hash,
        newer_hash=newer.hash, release=release, logit=None, cosine=0.1, probability=0.01,
        settled_by="student",
    )  # fmt: skip

    class Asked(type(opened)):
        def judge(self, pairs, cosines):
            return [Judged(1.0, cosine, 0.7) for cosine in cosines]

    opened.__class__ = Asked
    (said,) = scoring.score(newer, [(older, 0.9)], release=release, scorer=opened)

    assert said.probability == 0.7
