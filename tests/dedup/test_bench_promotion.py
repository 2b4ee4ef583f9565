import json
import subprocess
import sys

import pytest

from dedup.management.bench import promotion
from dedup.ml.artifact import verify
from dedup.models import Flag, Score
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory


@pytest.mark.slow
def test_the_bench_switches_releases_and_counts_what_came_of_it():
    ran = subprocess.run(
        [sys.executable, "manage.py", "bench", "promotion", "--json", "--seconds", "5"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["switches"] >= 1
    assert min(found["scores_by_release"].values()) > 0
    assert found["pairs"]["read_by_the_cross_encoder"] > 0
    assert found["pairs"]["alike"] == 0  # else a score could be of either
    assert found["pairs"]["right"] == found["pairs"]["scores"]
    assert found["checks"] > 0
    assert (found["lost"], found["failed_batches"], found["tracebacks_of_workers"]) == (0, 0, 0)
    assert found["doubled"] == {"flags": 0, "scores": 0}
    assert (found["errors"], list(found["pages"])) == ([], ["200"])
    assert found["flags_without_their_score"] == 0


def test_the_twin_is_a_release_of_its_own(tmp_path, settings):
    twin = verify(promotion.write_twin(settings.DEDUP_RELEASE, tmp_path / "twin"))
    shipped = verify(settings.DEDUP_ARTIFACTS / settings.DEDUP_RELEASE)

    assert twin.fingerprint != shipped.fingerprint
    assert twin.embedding_fingerprint == shipped.embedding_fingerprint


@pytest.mark.django_db
def test_a_score_that_names_the_wrong_release_would_be_seen():
    release, other = ReleaseFactory(), ReleaseFactory()
    flag = FlagFactory(release=release, probability=0.9)
    given = {"older_hash": "o" * 64, "newer_hash": "n" * 64, "logit": 1.0, "cosine": 0.9}
    pair = {"older": flag.older, "newer": flag.newer}
    score = Score.objects.create(**pair, **given, release=other, probability=0.9)
    assert promotion.flags_without_score() == 1

    Score.objects.filter(pk=score.pk).update(release=release)
    assert promotion.flags_without_score() == 0


@pytest.mark.django_db
def test_a_pair_that_is_kept_both_ways_round_would_be_seen():
    flag = FlagFactory()
    assert promotion.doubled(Flag, "older", "newer") == 0

    given = {"older_hash": "", "newer_hash": "", "logit": 1.0, "cosine": 0.9, "probability": 0.5}
    for older, newer in ((flag.older, flag.newer), (flag.newer, flag.older)):
        Score.objects.create(older=older, newer=newer, release=flag.release, **given)
    Score.objects.create(older=flag.older, newer=QuestionFactory(), release=flag.release, **given)
    assert promotion.doubled(Score, "older", "newer", "release") == 1
