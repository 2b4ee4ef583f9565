import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dedup.ml
from dedup.differences import Reading
from dedup.management.demo import __file__ as demo
from dedup.ml import biencoder
from dedup.ml.alignment import FLOOR, MOST, USUAL, ReadText, aligned
from dedup.ml.biencoder import BiEncoder
from dedup.ml.pairs import Pair
from dedup.ml.release import ReleaseScorer, open_release
from dedup.ml.text import model_input
from dedup.ml.words import is_plain
from tests.dedup.ml.networks import write_base

FOLDER = Path(dedup.ml.__file__).parent / "artifacts" / "minilm-l6-2"


def read(text, *directions):
    """A text whose words point where they are said to, each a unit vector of the plane."""
    angles = np.radians(directions)
    return ReadText(text.split(), np.stack([np.cos(angles), np.sin(angles)], axis=1))


def words(found):
    return [(pair.newer, pair.older) for pair in found]


def test_two_words_are_partners_where_each_is_the_others_nearest():
    newer = read("remove folder", 0, 90)
    older = read("directory delete erase", 95, 5, 8)

    assert words(aligned(newer, older)) == [("remove", "delete"), ("folder", "directory")]


def test_they_come_as_the_newer_text_has_them_and_as_they_stand():
    newer, older = read("Folder remove Now", 90, 0, 180), read("now DELETE directory", 181, 1, 91)

    found = aligned(newer, older)

    assert words(found) == [("Folder", "directory"), ("remove", "DELETE"), ("Now", "now")]
    assert found[0].cosine == pytest.approx(np.cos(np.radians(1)))


def test_a_word_that_stands_twice_is_told_apart_by_its_place():
    newer, older = read("lamp table lamp", 0, 90, 180), read("lamp lamp", 181, 1)

    found = aligned(newer, older)

    assert [(pair.newer_place, pair.older_place) for pair in found] == [(0, 1), (1, 0)]


def test_words_that_mean_nothing_by_themselves_are_nobodys_partner():
    assert aligned(read("the at lamp", 0, 10, 90), read("the at door", 0, 10, 270)) == []


def test_a_single_word_has_to_be_nearer_than_usual_by_the_floor():
    """Nine neighbours are missing and count as usual: (10 - 1) / 10 of the way is left."""
    bound = USUAL + FLOOR / 0.9

    for cosine, count in ((bound + 0.01, 1), (bound - 0.01, 0)):
        angle = np.degrees(np.arccos(cosine))
        assert len(aligned(read("lamp", 0), read("light", angle))) == count


def test_a_word_that_is_near_to_everything_is_nobodys_partner():
    cosines = np.eye(11)
    cosines[0, 1:] = cosines[1:, 0] = 0.5
    cosines[0, 0] = 0.6  # each is still the other's nearest
    names = [f"word{n}" for n in range(11)]

    hubs = aligned(ReadText(names, cosines), ReadText(names, np.eye(11)))
    alone = aligned(ReadText(names[:1], cosines[:1, :1]), ReadText(names[:1], np.eye(1)))

    assert words(hubs) == [(name, name) for name in names[1:]]
    assert words(alone) == [("word0", "word0")]


def test_the_surest_are_kept_where_there_are_too_many():
    count = MOST + 5
    vectors = np.eye(2 * count)
    weaker = vectors[:count].copy()
    weaker[:5] = 0.8 * vectors[:5] + 0.6 * vectors[count : count + 5]
    names = [f"word{n}" for n in range(count)]

    found = aligned(ReadText(names, vectors[:count]), ReadText(names, weaker))

    assert [pair.newer for pair in found] == names[5:]


@given(st.lists(st.integers(0, 359), max_size=8), st.lists(st.integers(0, 359), max_size=8))
def test_no_word_has_two_partners_and_the_pair_turned_round_has_the_same(ours, theirs):
    newer = read(" ".join(f"new{n}" for n in range(len(ours))), *ours)
    older = read(" ".join(f"old{n}" for n in range(len(theirs))), *theirs)

    found = words(aligned(newer, older))

    assert len({new for new, _ in found}) == len({old for _, old in found}) == len(found)
    if len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs):
        assert {(new, old) for old, new in words(aligned(older, newer))} == set(found)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return BiEncoder(write_base(tmp_path_factory.mktemp("base")))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["open", "the", "door", "my car", "2 bills!"]), max_size=6))
def test_a_text_is_read_alone_as_it_is_among_others(small, texts):
    alone = [small.read([text])[0] for text in texts]

    for one, among in zip(alone, small.read(texts), strict=True):
        assert one.words == among.words
        np.testing.assert_allclose(one.vectors, among.vectors, atol=1e-5)


def test_words_stand_as_in_the_text_and_what_is_cut_off_is_none(small, monkeypatch):
    monkeypatch.setattr(biencoder, "MAX_TOKENS", 20)
    text = "Open, open-door! " + "car " * 20

    found = small.read([text])[0]

    assert found.words[:3] == ["Open", "open-door", "car"]
    assert found.words.count("car") == 20 - 2 - 6  # the text's ends; what stands before the cars
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_vector_that_is_not_finite_is_an_error(small, monkeypatch):
    broken = torch.full((3, small.dimensions), torch.nan)
    monkeypatch.setattr(small.packed, "token_states", lambda *_: [broken])

    with pytest.raises(FloatingPointError, match="not finite"):
        small.read(["door"])


@pytest.fixture(scope="module")
def scorer():
    return open_release(FOLDER)


@pytest.fixture(scope="module")
def pairs():
    """What comes in the demo, each beside the question that it is like."""
    folder = Path(demo).parent
    known = {row["key"]: row for row in json.loads((folder / "seed.json").read_text())["questions"]}
    arrivals = json.loads((folder / "arrivals.json").read_text())
    seeded = [row for row in known.values() if row["duplicate_of"] or row["near_miss_of"]]
    both = [(known[row["of"]], row) for row in arrivals]
    both += [(known[row["duplicate_of"] or row["near_miss_of"]], row) for row in seeded]
    return [
        Pair(*(model_input(row["title"], row["body"]) for row in pair)) for pair in both
    ]  # fmt: skip


@pytest.fixture(scope="module")
def usual(scorer, pairs):
    return [words(found) for found in scorer.align(pairs)]


def share_of_equal(found, usual):
    same = sum(len(set(one) & set(other)) for one, other in zip(found, usual, strict=True))
    either = sum(len(set(one) | set(other)) for one, other in zip(found, usual, strict=True))
    return same / either


def test_words_in_other_words_find_each_other(scorer):
    newer = "HELP removed the wrong directory on my notebook"
    older = "I deleted a folder on the laptop by mistake"

    found = words(scorer.align([Pair(older, newer)])[0])

    assert {("removed", "deleted"), ("directory", "folder"), ("notebook", "laptop")} <= set(found)


def is_in_other_words(new, old):
    return any(piece.is_other for piece in Reading(old, {}).pieces(new))


def test_partners_are_those_that_a_person_named_and_a_third_of_those_are_found(
    scorer, record_property
):
    """Told in other words; what a person thought possible is no mistake, and is not missed."""
    rows = json.loads(Path(__file__).with_name("word_pairs.json").read_text())
    shown = right = named = found = 0
    for row, partners in zip(
        rows, scorer.align([Pair(row["older"], row["newer"]) for row in rows]), strict=True
    ):
        said = {tuple(one) for one in row["right"] if not any(map(is_plain, one))}
        said = {one for one in said if is_in_other_words(*one)}
        borne = said | {tuple(one) for one in row["possible"]}
        told = {(new.lower(), old.lower()) for new, old in words(partners)}
        told = {one for one in told if is_in_other_words(*one)}
        shown, right = shown + len(told), right + len(told & borne)
        named, found = named + len(said), found + len(told & said)

    record_property("aligned", {"shown": shown, "right": right, "named": named, "found": found})
    assert right / shown > 0.9
    assert found / named > 0.3


def test_partners_are_the_same_alone_in_another_order_and_with_white_space(scorer, pairs, usual):
    turned = scorer.align(pairs[::-1])[::-1]
    alone = [scorer.align([pair])[0] for pair in pairs]
    padded = scorer.align([Pair(f"{pair.older} \n", f"{pair.newer}\t ") for pair in pairs])

    assert len(pairs) >= 40
    for found in (turned, alone, padded):
        assert [words(one) for one in found] == usual


def test_partners_in_bf16_are_those_in_fp32(scorer, pairs, usual, record_property):
    half = BiEncoder(FOLDER / "bi-encoder", dtype=torch.bfloat16)
    rough = ReleaseScorer(scorer.manifest, half, scorer.cross, scorer.calibration)

    share = share_of_equal([words(found) for found in rough.align(pairs)], usual)

    record_property("equal_in_bf16", share)
    assert share >= 0.95


def test_questions_that_have_little_to_do_with_each_other_have_few_partners(scorer, pairs, usual):
    strangers = [
        Pair(one.older, other.newer)
        for one, other in zip(pairs, pairs[7:] + pairs[:7], strict=True)
    ]

    found = scorer.align(strangers)

    assert sum(map(len, found)) < sum(map(len, usual)) / 3


def test_no_pairs_have_no_words(scorer):
    assert scorer.align([]) == []
