import pytest

from dedup.ml.cascade import Cascade
from dedup.ml.pairs import Pair
from tests.dedup.folders import write_release
from tests.dedup.readers import reader

NEAR, FAR = 0.9, 0.3  # at the second one no logit is heard


@pytest.fixture
def teacher(tmp_path):
    return reader(write_release(tmp_path, "teacher"))


@pytest.fixture
def student(tmp_path):
    return reader(write_release(tmp_path, "student"), by=0.5)


def pairs_of(*logits):
    return [Pair(f"lamp {n}", f"lamp {logit}") for n, logit in enumerate(logits)]


def test_a_student_settles_what_is_unlikely_and_the_teacher_reads_the_rest(teacher, student):
    pairs = pairs_of(-8, 2, -1, -8)

    said = Cascade(teacher, student, 0.1).judge(pairs, [NEAR, NEAR, NEAR, FAR])

    assert [one.settled_by for one in said] == [
        "student", "cross-encoder", "cross-encoder", "cosine",
    ]  # fmt: skip
    assert [one.logit for one in said] == [None, 2.0, -1.0, None]
    assert said[0].probability == pytest.approx(0.018, abs=0.001)  # of half the logit
    assert said[1:] == teacher.judge(pairs, [NEAR, NEAR, NEAR, FAR])[1:]
    assert student.cross.read == pairs[:3]
    assert teacher.cross.read[:2] == pairs[1:3]


def test_a_student_settles_nothing_at_or_above_its_floor(teacher, student):
    pairs = pairs_of(*range(-12, 13))

    for floor in (0.0, 0.02, 0.5):
        for one in Cascade(teacher, student, floor).judge(pairs, [NEAR] * len(pairs)):
            assert one.settled_by == "cross-encoder" or one.probability < floor


def test_to_all_else_a_cascade_is_its_teacher(teacher, student):
    found = Cascade(teacher, student, 0.1)

    assert (found.name, found.fingerprint) == (teacher.name, teacher.fingerprint)
    assert found.embedding_fingerprint == teacher.embedding_fingerprint
    assert (found.embed(["a lamp"]) == teacher.embed(["a lamp"])).all()
    assert found.judge([], []) == []
