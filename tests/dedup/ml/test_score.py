import json
import subprocess
import sys
from pathlib import Path

import pytest

import dedup.ml
from dedup.ml import score
from dedup.ml.score import BadLine, Remembered, score_lines
from tests.fakes import FakeScorer

RELEASE = sorted(Path(dedup.ml.__file__).parent.glob("artifacts/*/manifest.json"))[-1].parent


def line(first, second, **more):
    return json.dumps({"q1": first, "q2": second, **more})


def test_each_line_gets_a_line_in_order_and_bodies_count(monkeypatch):
    monkeypatch.setattr(score, "ROWS_PER_BATCH", 2)
    lines = [line("open door", "open door"), line("pay", "shop"), "", line("pay", "pay")]
    lines += [line("pay", "pay", body1="now", body2="later today")]

    found = [json.loads(row) for row in score_lines(FakeScorer(), lines)]

    assert [set(row) for row in found] == [{"logit", "cosine", "probability"}] * 4
    assert found[0]["cosine"] == pytest.approx(1)
    assert found[1]["cosine"] < found[3]["cosine"] < found[2]["cosine"]


@pytest.mark.parametrize("bad", ["{", "[]", '{"q1": "a"}', '{"q1": 1, "q2": "b"}', "3"])
def test_a_bad_line_is_named_and_those_before_it_are_scored(bad):
    found, lines = [], [line("pay", "pay"), "", bad, line("shop", "shop")]

    with pytest.raises(BadLine, match="line 3"):
        found.extend(score_lines(FakeScorer(), lines))  # keeps what came before

    assert len(found) == 1


def test_a_text_is_embedded_once_and_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(score, "KEPT_VECTORS", 3)
    scorer, asked = FakeScorer(), []
    real = scorer.embed
    scorer.embed = lambda texts: asked.extend(texts) or real(texts)
    remembered = Remembered(scorer)

    remembered.embed(["a", "b", "a"])
    remembered.embed(["b", "c", "d"])
    remembered.embed(["a"])

    assert asked == ["a", "b", "c", "d", "a"]
    assert set(remembered.known) == {"a"}


def test_the_command_scores_without_django_and_says_how_far_it_is():
    given = "\n".join([line("How do I reset my password?", "I forgot my password"), "nonsense"])
    program = (
        "import sys; sys.argv = ['score', sys.argv[1]]\n"
        "from dedup.ml.score import main\n"
        "status = main()\n"
        "assert 'django' not in sys.modules\n"
        "sys.exit(status)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(RELEASE)],
        input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert 0 <= json.loads(done.stdout)["probability"] <= 1


def test_a_folder_that_is_no_release_is_refused_in_words(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dedup.ml.score", str(tmp_path)],
        input="", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "manifest.json" in done.stderr
