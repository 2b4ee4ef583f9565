import numpy as np
import pytest

from dedup.ml.teaching import Teacher, brought_to
from tests.dedup.ml.networks import write_base


def test_a_teacher_reads_each_text_once(tmp_path, monkeypatch):
    folder, memory = write_base(tmp_path / "teacher"), tmp_path / "memory.npz"
    first = Teacher(folder, memory).embed(["open the door", "pay"])
    again = Teacher(folder, memory)
    monkeypatch.setattr(again, "_pool", lambda ids: pytest.fail("it was known"))

    np.testing.assert_array_equal(again.embed(["pay", "open the door"]), first[::-1])


def test_a_teacher_gives_the_same_vectors_however_many_texts_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("dedup.ml.teaching.TOKENS_PER_BATCH", 12)
    texts = ["pay", "how do i open the old red door", "my bill", "my blue car in the shop"]
    teacher = Teacher(write_base(tmp_path / "teacher"), tmp_path / "memory.npz")
    alone = Teacher(tmp_path / "teacher", tmp_path / "other.npz")

    found = teacher.embed(texts)

    each = np.concatenate([alone.embed([text]) for text in texts])
    np.testing.assert_allclose(found, each, atol=2e-2)  # read in bf16
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_a_teachers_cosines_take_on_the_bases_mean_and_spread():
    base = np.asarray([0.1, 0.5, 0.9])

    found = brought_to(np.asarray([0.6, 0.4, 0.5]), base)

    assert (found.mean(), found.std()) == pytest.approx((base.mean(), base.std()))
    assert np.argsort(found).tolist() == [1, 2, 0]
