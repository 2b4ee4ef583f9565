from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from django.utils import timezone

from dedup import blind, estimating, feedback, queue, review, tasks
from dedup.choosing import Candidate, choose, pick
from dedup.models import Embedding, Flag, Score
from dedup.texts import Text, text_of
from support import asking, merging
from support.templatetags.texts import percent
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory
from tests.fakes import CHOSEN, NEITHER, SAMPLED, Dice, FakeScorer

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def scored(release, older=None, newer=None, probability=0.3, **given):
    """A pair that a check scored, and of which nobody was asked."""
    older, newer = older or QuestionFactory(**given), newer or QuestionFactory(**given)
    for question in (older, newer):
        text = text_of(question)
        Embedding.objects.get_or_create(
            question=question,
            defaults={
                "vector": FakeScorer().embed([text.input])[0], "text_hash": text.hash,
                "fingerprint": release.embedding_fingerprint,
            },
        )  # fmt: skip
    return Score.objects.create(
        older=older, newer=newer, older_hash=text_of(older).hash, newer_hash=text_of(newer).hash,
        release=release, logit=0.1, cosine=0.6, probability=probability,
    )  # fmt: skip


def chosen(scorer, count=10):
    return choose(release=scorer.release, scorer=scorer, count=count, now=NOW)


def pairs(flags):
    return {flag.question_ids for flag in flags}


def of(*scores):
    return {(score.older_id, score.newer_id) for score in scores}


def test_a_chosen_pair_waits_blindly_and_apart_from_those_that_were_drawn(scorer):
    score = scored(scorer.release)
    (flag,) = chosen(scorer)

    flag.refresh_from_db()
    assert flag.question_ids == (score.older_id, score.newer_id)
    assert (flag.status, flag.lane, flag.asked_share) == ("open", "chosen", None)
    assert (flag.probability, flag.release, flag.flagged_at) == (0.3, scorer.release, NOW)
    assert (flag.older_hash, flag.newer_hash) == (score.older_hash, score.newer_hash)
    assert flag.alignment  # its card looks as any without a score
    assert flag.is_blind


@pytest.mark.parametrize("lane", ["flagged", "sampled"])
@pytest.mark.parametrize("status", ["open", "dismissed", "withdrawn"])
def test_what_was_asked_about_is_not_chosen(scorer, lane, status):
    score = scored(scorer.release)
    FlagFactory(older=score.older, newer=score.newer, lane=lane, status=status)

    assert chosen(scorer) == []


def test_what_reaches_the_threshold_is_not_chosen(scorer):
    scored(scorer.release, probability=0.8)
    scored(ReleaseFactory(embedding_fingerprint="e" * 64))  # of another release

    assert chosen(scorer) == []


@pytest.mark.parametrize("end", ["older", "newer"])
def test_a_text_that_changed_since_is_not_asked_about(scorer, end):
    question = getattr(scored(scorer.release), end)
    asking.edit_question(
        question=question, title="Said otherwise", body="", audience="public",
        by=question.asked_by, seen=question.version,
    )  # fmt: skip

    assert chosen(scorer) == []


def test_a_merged_question_is_not_asked_about(scorer, admin):
    score = scored(scorer.release)
    merging.merge(duplicate=score.newer, canonical=QuestionFactory(), by=admin)

    assert chosen(scorer) == []


def test_a_pair_that_is_merged_while_it_is_chosen_is_left_out(scorer, admin, monkeypatch):
    score = scored(scorer.release)
    align = scorer.align

    def merge_meanwhile(found):
        merging.merge(duplicate=score.newer, canonical=score.older, by=admin)
        return align(found)

    monkeypatch.setattr(scorer, "align", merge_meanwhile)
    assert chosen(scorer) == []
    assert not Flag.objects.exists()


def test_no_more_wait_than_are_to_be_asked_a_day(scorer, settings):
    settings.DEDUP_CHOSEN_PER_DAY = 3
    for _ in range(5):
        scored(scorer.release)
    tasks.choose_pairs()
    assert Flag.objects.count() == 3

    Flag.objects.filter(pk=Flag.objects.first().pk).update(status="dismissed")
    tasks.choose_pairs()
    assert Flag.objects.open().count() == 3
    assert Flag.objects.count() == 4


def test_two_who_choose_at_once_ask_no_more_than_one_would(scorer, monkeypatch):
    for _ in range(3):
        scored(scorer.release, probability=0.1)
    align = scorer.align

    def choose_meanwhile(found):
        monkeypatch.setattr(scorer, "align", align)
        for _ in range(3):  # a check has found better ones meanwhile: the other chooses these
            scored(scorer.release, probability=0.5)
        chosen(scorer, count=3)
        return align(found)

    monkeypatch.setattr(scorer, "align", choose_meanwhile)
    assert chosen(scorer, count=3) == []
    assert Flag.objects.open().count() == 3


def test_without_a_release_or_a_wish_nothing_is_chosen(scorer, settings, monkeypatch):
    scored(scorer.release)
    settings.DEDUP_CHOSEN_PER_DAY = 0
    tasks.choose_pairs()

    def none():
        raise tasks.releases.NoRelease("none")

    settings.DEDUP_CHOSEN_PER_DAY = 3
    monkeypatch.setattr(tasks.scoring, "active_scorer", none)
    tasks.choose_pairs()
    tasks.score_labels()
    assert not Flag.objects.exists()


def test_each_question_is_asked_about_once(scorer):
    hub = QuestionFactory()
    for _ in range(4):
        scored(scorer.release, older=hub)

    assert len(chosen(scorer)) == 1


# What is chosen first


def candidate(number, probability=0.3, product="lamp", language="en"):
    older, newer = (Text(pk, (NOW, pk), str(pk), str(pk)) for pk in (2 * number, 2 * number + 1))
    return Candidate(older, newer, probability, {"product": product, "language": language})


def points(*vectors):
    """Both questions of pair n lie at vector n."""
    return {pk: np.asarray(v, float) for n, v in enumerate(vectors) for pk in (2 * n, 2 * n + 1)}


def label_of(one):
    return feedback.Label(
        older_id=one.ends[0], newer_id=one.ends[1], pair=None, cosine=None, logit=None, label=0.0,
        weight=1.0, share=None, lane="chosen", release="", probability=None, by=(), said_at=NOW,
        first_said_at=NOW, part="train", segments=one.segments,
    )  # fmt: skip


def test_of_pairs_equally_far_the_most_uncertain_comes_first():
    found = [candidate(n, p) for n, p in enumerate([0.05, 0.4, 0.2])]
    places = points([1, 0, 0], [0, 1, 0], [0, 0, 1])

    assert [one.probability for one in pick(found, [], places, 3)] == [0.4, 0.2, 0.05]


def test_what_is_like_a_labelled_pair_comes_last():
    known, like_it, unlike = (candidate(n) for n in range(3))
    places = points([1, 0, 0], [1, 0.1, 0], [0, 0, 1])

    first, second = pick([like_it, unlike], [label_of(known)], places, 2)
    assert (first, second) == (unlike, like_it)


def test_of_pairs_that_are_alike_one_is_taken_before_others_are_taken_twice():
    found = [candidate(n, 0.4) for n in range(20)] + [candidate(20, 0.2)]
    places = points(*[[1, 0.01 * n, 0] for n in range(20)], [0, 0, 1])

    assert found[20] in pick(found, [], places, 2)


def test_of_a_product_of_which_little_is_known_more_is_asked():
    known = [candidate(n) for n in range(2, 40)] + [candidate(40, product="door")]
    much, little = candidate(0, 0.3), candidate(1, 0.28, product="door")
    places = points([1, 0, 0], [0, 1, 0], *[[0, 0, 1]] * 39)

    assert pick([much, little], [label_of(one) for one in known], places, 1) == [little]
    assert pick([much, replace(little, segments=much.segments)], [], places, 1) == [much]


def test_a_pair_whose_vectors_are_missing_waits():
    assert pick([candidate(0)], [], {}, 1) == []
    assert pick([], [], {}, 1) == []


def test_it_spreads_over_subjects_where_the_likeliest_are_of_one():
    """Of 300 pairs of five subjects, most and the likeliest of the first."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(5, 30))
    subjects = [0] * 260 + [1, 2, 3, 4] * 10
    found = [candidate(n, 0.4 if s == 0 else 0.25) for n, s in enumerate(subjects)]
    places = points(*[centres[s] + 0.1 * rng.normal(size=30) for s in subjects])

    taken = pick(found, [], places, 10)
    by_subject = Counter(subjects[one.older.question_id // 2] for one in taken)
    assert set(by_subject) == {0, 1, 2, 3, 4}


# A lane of its own


def test_a_chosen_pair_never_moves_an_estimate(scorer, agent):
    release = scorer.release
    for _ in range(22):
        judge(FlagFactory(release=release), agent, True)
        drawn = {"probability": 0.1, "lane": "sampled", "asked_share": 0.1}
        judge(FlagFactory(release=release, **drawn), agent, False)
    before = estimating.cases(release).quality()
    for is_same in (True, False):
        scored(release, probability=0.7)
        judge(chosen(scorer)[0], agent, is_same)

    assert [one.lane for one in feedback.labels()].count("chosen") == 2
    assert estimating.cases(release).quality() == before
    assert before.recall is not None


def judge(flag, by, is_same):
    if is_same:
        review.confirm(flag=flag, canonical=flag.older, by=by)
    else:
        review.dismiss(flag=flag, by=by)


def test_it_is_dealt_now_and_then_without_its_score(agent):
    flag = FlagFactory(lane=Flag.Lane.CHOSEN, asked_share=None)
    assert list(queue.queue(agent)) == []
    assert blind.deal(agent, chance=Dice(SAMPLED)) == []
    assert blind.deal(agent, chance=Dice(NEITHER)) == []

    waiting = FlagFactory()
    assert blind.deal(agent, count=2, chance=Dice(CHOSEN, NEITHER)) == [flag, waiting]


def test_nobody_sees_its_score_before_it_is_decided(agent):
    flag = FlagFactory(lane=Flag.Lane.CHOSEN, asked_share=None)
    assert not Flag.objects.unhidden().exists()
    assert not Flag.objects.flagged().exists()

    review.dismiss(flag=flag, by=agent)
    assert Flag.objects.unhidden().get() == flag


def test_its_card_shows_no_score(client, agent):
    flag = FlagFactory(lane=Flag.Lane.CHOSEN, asked_share=None, probability=0.3137)
    other = FlagFactory(probability=0.3137)
    client.force_login(agent)
    page, with_score = (
        client.get(f"/review/{each.pk}/").content.decode() for each in (flag, other)
    )

    assert "Without its score" in page
    assert "Without its score" not in with_score
    for shown in ("<meter", "0.3137", percent(0.3137)):
        assert shown in with_score
        assert shown not in page


def test_it_stands_back_behind_a_flag_between_the_same_threads(agent, admin):
    flag = FlagFactory()
    merged = QuestionFactory()
    merging.merge(duplicate=merged, canonical=flag.newer, by=admin)
    FlagFactory(
        older=flag.older, newer=merged, probability=0.99, lane=Flag.Lane.CHOSEN, asked_share=None
    )

    assert queue.claim_next(agent) == [flag]
