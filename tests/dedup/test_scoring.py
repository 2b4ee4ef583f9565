import math

import pytest
from django.db import IntegrityError

from dedup import releases, scoring
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.pairs import Judged, SettledBy
from dedup.models import Release, Score
from dedup.texts import text_of
from support.models import Question
from tests.dedup.folders import write_release
from tests.factories import QuestionFactory, ReleaseFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db


@pytest.fixture
def texts():
    return [text_of(question) for question in QuestionFactory.create_batch(2)]


@pytest.fixture
def artifacts(tmp_path, settings, monkeypatch):
    """A folder of releases; a process that has loaded none."""
    settings.DEDUP_ARTIFACTS = tmp_path
    monkeypatch.setattr(scoring, "_loaded", None)
    monkeypatch.setattr(scoring, "_refused", {})
    return tmp_path


@pytest.fixture
def opened(artifacts, monkeypatch):
    """Names of folders that were opened; the networks are fakes."""
    names = []

    def open_fake(folder, *, threads):
        names.append(folder.name)
        fake = FakeScorer()
        fake.fingerprint = releases.verify(folder).fingerprint
        return fake

    monkeypatch.setattr(scoring, "open_release", open_fake)
    return names


def put_into_service(artifacts, name, note=""):
    write_release(artifacts, name, note=note)
    return releases.activate(release=releases.add(name))


def keep(older, newer, release, probability=0.5):
    return Score.objects.create(
        older_id=older.question_id, newer_id=newer.question_id, older_hash=older.hash,
        newer_hash=newer.hash, release=release, logit=0.0, cosine=0.1, probability=probability,
    )  # fmt: skip


def test_a_pair_is_scored_once_by_a_release(texts, scorer):
    older, newer = texts
    keep(older, newer, scorer.release, probability=0.33)

    for text, other in ((newer, older), (older, newer)):
        (said,) = scoring.score(text, [(other, 0.7)], release=scorer.release, scorer=scorer)
        assert said == Judged(0.0, 0.1, 0.33)

    assert scorer.judged == 0


def test_another_release_scores_a_pair_anew(texts, scorer):
    older, newer = texts
    keep(older, newer, ReleaseFactory())

    scoring.score(newer, [(older, 0.7)], release=scorer.release, scorer=scorer)

    assert scorer.judged == 1


@pytest.mark.parametrize("edited", [0, 1])
def test_an_edit_of_either_text_makes_a_kept_score_void(texts, scorer, edited):
    keep(*texts, scorer.release)
    Question.objects.filter(pk=texts[edited].question_id).update(body="Now it hums.")
    older, newer = [text_of(Question.objects.get(pk=text.question_id)) for text in texts]

    scoring.score(newer, [(older, 0.7)], release=scorer.release, scorer=scorer)
    scoring.score(older, [(newer, 0.7)], release=scorer.release, scorer=scorer)

    assert scorer.judged == 2


def test_kept_and_new_scores_come_in_the_order_that_was_asked(texts, scorer):
    third = text_of(QuestionFactory())
    keep(texts[0], third, scorer.release, probability=0.01)
    given = [(texts[1], 0.5), (texts[0], 0.4)]

    said = scoring.score(third, given, release=scorer.release, scorer=scorer)

    assert [row.cosine for row in said] == [0.5, 0.1]
    assert scorer.judged == 1


def test_the_older_text_comes_first_whoever_asks(texts):
    older, newer = texts

    assert scoring.pair_of(newer, older) == scoring.pair_of(older, newer)
    assert scoring.pair_of(newer, older).older == older.input


@pytest.mark.parametrize("bad", [Judged(math.nan, 0.5, 0.5), Judged(1.0, 0.5, math.nan)])
def test_a_score_that_is_no_number_is_a_failure(texts, scorer, monkeypatch, bad):
    monkeypatch.setattr(scorer, "judge", lambda pairs, cosines: [bad])

    with pytest.raises(FloatingPointError):
        scoring.score(texts[0], [(texts[1], 0.5)], release=scorer.release, scorer=scorer)


def test_the_networks_are_loaded_once_and_thresholds_read_anew(artifacts, opened):
    release = put_into_service(artifacts, "one")
    scoring.active_scorer()
    Release.objects.filter(pk=release.pk).update(threshold=0.42)

    found, _ = scoring.active_scorer()

    assert opened == ["one"]
    assert found.threshold == 0.42


def test_a_release_that_is_activated_or_rolled_back_is_taken_up_without_a_restart(
    artifacts, opened
):
    put_into_service(artifacts, "one")
    scoring.active_scorer()
    put_into_service(artifacts, "two")
    assert scoring.active_scorer()[0].name == "two"

    releases.roll_back()

    assert scoring.active_scorer()[0].name == "one"
    assert opened == ["one", "two", "one"]


def test_without_a_release_nothing_is_scored(artifacts):
    with pytest.raises(releases.NoRelease):
        scoring.active_scorer()


def test_a_refused_release_never_replaces_the_one_that_runs(artifacts, opened, monkeypatch):
    put_into_service(artifacts, "one")
    running = scoring.active_scorer()
    put_into_service(artifacts, "two")
    tried = []

    def refuse(folder, *, threads):
        tried.append(folder.name)
        raise ArtifactRefused("a weight is not finite")

    monkeypatch.setattr(scoring, "open_release", refuse)

    assert [scoring.active_scorer() for _ in range(3)] == [running] * 3
    assert tried == ["two"]


def test_a_refused_release_alone_scores_nothing(artifacts, monkeypatch):
    put_into_service(artifacts, "one")
    (artifacts / "one" / "README.md").write_text("other")

    with pytest.raises(ArtifactRefused, match="sha256"):
        scoring.active_scorer()


def test_other_files_in_the_folder_of_the_active_release_never_speak_for_it(artifacts, opened):
    put_into_service(artifacts, "one")
    write_release(artifacts, "one", note="other")

    with pytest.raises(ArtifactRefused, match="other files"):
        scoring.active_scorer()


def test_a_kept_score_says_who_settled_it(texts, scorer):
    older, newer = texts
    kept = keep(older, newer, scorer.release)
    Score.objects.filter(pk=kept.pk).update(logit=None, settled_by="cosine")

    (said,) = scoring.score(newer, [(older, 0.7)], release=scorer.release, scorer=scorer)

    assert said == Judged(None, 0.1, 0.5, SettledBy.COSINE)


@pytest.mark.parametrize(
    ("settled_by", "logit"), [("cross-encoder", None), ("cosine", 1.0), ("student", 1.0)]
)
def test_only_what_the_cross_encoder_read_has_a_logit_of_it(texts, scorer, settled_by, logit):
    kept = keep(*texts, scorer.release)

    with pytest.raises(IntegrityError, match="score_logit_where_cross_encoder_read"):
        Score.objects.filter(pk=kept.pk).update(logit=logit, settled_by=settled_by)
