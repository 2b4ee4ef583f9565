"""Which pairs wait for whom, in which order, and who holds them."""

import random
from collections import Counter
from datetime import timedelta
from itertools import combinations
from threading import Barrier, Thread

import pytest
from django.db import connection
from django.utils import timezone

from dedup import flagging, queue, review
from dedup.models import Flag
from dedup.queue import Filter
from support import merging
from support.models import Question
from tests.factories import (
    FlagFactory,
    ProductFactory,
    QuestionFactory,
    ReleaseFactory,
)

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def asked(**wanted):
    return Filter.parse(wanted)


def test_a_filter_stands_in_the_address_and_comes_back_out_of_it():
    wanted = asked(product="lamp", language="de", band="likely", age="week", who="free")

    assert wanted.query == "product=lamp&language=de&band=likely&age=week&who=free"
    assert asked(**dict(wanted.parts)) == wanted


def test_what_no_filter_knows_is_left_out():
    assert asked(band="sure", age="1", who="me", page="2") == Filter()


def test_each_filter_keeps_what_it_names(agent, admin):
    release = ReleaseFactory(threshold=0.5, sure_threshold=0.8)
    lamp, door = ProductFactory(slug="torch"), ProductFactory(slug="door")
    likely = FlagFactory(
        release=release, probability=0.9, newer=QuestionFactory(product=lamp, language="en")
    )
    perhaps = FlagFactory(
        release=release, probability=0.6, newer=QuestionFactory(product=door, language="de"),
        flagged_at=NOW - timedelta(days=3),
    )  # fmt: skip
    hardly = FlagFactory(release=release, probability=0.4, flagged_at=NOW - timedelta(days=40))
    queue.claim(flag=likely, by=admin, now=NOW)
    queue.claim(flag=perhaps, by=agent, now=NOW)
    review.ask_second_opinion(flag=hardly, by=admin, now=NOW)

    def found(**wanted):
        return list(queue.queue(agent, asked(**wanted), now=NOW))

    assert found() == [likely, perhaps, hardly]
    assert found(product="torch") == [likely]
    assert found(language="de") == [perhaps]
    assert [found(band=band) for band in queue.BANDS] == [[likely], [perhaps], [hardly]]
    assert [found(age=age) for age in queue.AGES] == [
        [likely],
        [likely, perhaps],
        [likely, perhaps],
    ]
    assert found(who="free") == [perhaps, hardly]
    assert found(who="mine") == [perhaps]
    assert found(who="unsure") == [hardly]
    assert found(who="disputed") == []
    assert found(product="door", band="likely") == []


def test_a_snoozed_pair_is_hidden_from_everybody_until_its_time(agent, admin):
    flag = FlagFactory()
    review.snooze(flag=flag, by=agent, until=NOW + timedelta(hours=1), now=NOW)

    assert list(queue.queue(admin, now=NOW)) == []
    assert list(queue.queue(admin, now=NOW + timedelta(hours=1))) == [flag]


def test_a_snoozed_pair_wakes_when_enough_others_like_it_have_come(agent):
    flag = FlagFactory()
    review.snooze(flag=flag, by=agent, until=NOW + timedelta(days=90), more=2, now=NOW)

    for left in (1, 0):
        flagging._wake(flag.newer_id)
        flag.refresh_from_db()
        assert flag.snoozed_left == left
    assert list(queue.queue(agent, now=NOW)) == [flag]


@pytest.mark.parametrize("ahead", [timedelta(), timedelta(days=-1), timedelta(days=93)])
def test_a_snooze_into_the_past_or_for_ever_is_refused(agent, ahead):
    flag = FlagFactory()
    with pytest.raises(review.WrongTime):
        review.snooze(flag=flag, by=agent, until=NOW + ahead, now=NOW)

    assert list(queue.queue(agent, now=NOW)) == [flag]


def test_who_wants_a_second_opinion_does_not_get_the_pair_back(agent, admin):
    flag = FlagFactory()
    review.ask_second_opinion(flag=flag, by=agent, note="Which lamp?", now=NOW)

    assert queue.claim_next(agent, now=NOW) == []
    assert queue.claim_next(admin, now=NOW) == [flag]
    flag.refresh_from_db()
    assert (flag.unsure_by, flag.unsure) == (agent, "Which lamp?")


def sampled(**given):
    return FlagFactory(lane=Flag.Lane.SAMPLED, asked_share=0.01, probability=0.3, **given)


def sampled_for(person, **given):
    return queue.claim_blind(person, chance=random.Random(1), **given)


def test_pairs_from_below_the_threshold_are_not_in_the_queue(agent):
    flag = FlagFactory()
    sampled()

    assert list(queue.queue(agent)) == [flag]
    assert queue.claim_next(agent, count=3) == [flag]
    assert queue.neighbours(agent, flag) == (None, None)


def test_a_pair_from_below_the_threshold_hides_no_flag_and_comes_only_of_single_questions(agent):
    release = ReleaseFactory(threshold=0.1)
    flag = FlagFactory(release=release, probability=0.2)
    low = sampled(older=flag.older, newer=QuestionFactory(canonical=flag.newer))

    assert list(queue.queue(agent)) == queue.claim_next(agent) == [flag]
    assert sampled_for(agent) is None
    review.dismiss(flag=flag, by=agent)
    assert sampled_for(agent) is None
    Question.objects.filter(pk=low.newer_id).update(canonical=None)
    assert sampled_for(agent) == low


def test_two_people_never_get_the_same_pair_from_below_the_threshold(agent, admin):
    flags = [sampled(), sampled()]
    found = [sampled_for(person) for person in (agent, admin)]

    assert sorted(flag.pk for flag in found) == [flag.pk for flag in flags]
    assert sampled_for(agent) == found[0]  # it is held for them
    assert sampled_for(agent, held=[found[0].pk]) is None


def test_each_pair_from_below_the_threshold_comes_as_often_whatever_its_probability(agent):
    for probability in (0.1, 0.2, 0.7):
        FlagFactory(lane=Flag.Lane.SAMPLED, probability=probability)
    chance, seen = random.Random(3), Counter()
    for _ in range(90):
        flag = queue.claim_blind(agent, chance=chance)
        seen[flag.probability] += 1

    assert min(seen[p] for p in (0.1, 0.2, 0.7)) > 18


def test_what_somebody_skipped_or_a_filter_leaves_out_does_not_come_blindly_either(agent, admin):
    flag = sampled(newer=QuestionFactory(language="de"))
    assert sampled_for(agent, wanted=asked(language="en")) is None
    assert sampled_for(agent, wanted=asked(language="de")) == flag

    review.skip(flag=flag, by=agent)
    assert sampled_for(agent) is None
    assert sampled_for(admin) == flag


def test_several_cards_are_held_at_once_but_for_those_that_a_page_has(agent):
    flags = [FlagFactory(probability=p) for p in (0.9, 0.8, 0.7)]

    assert queue.claim_next(agent, count=2, held=[flags[0].pk]) == flags[1:]


def test_a_heartbeat_holds_on_and_leaving_lets_go(agent, admin):
    flag = FlagFactory()
    queue.claim(flag=flag, by=agent, now=NOW)

    assert queue.hold([flag.pk], by=agent, now=NOW + timedelta(minutes=4)) == 1
    assert not queue.claim(flag=flag, by=admin, now=NOW + timedelta(minutes=8))
    assert queue.reviewers_now(now=NOW + timedelta(minutes=8)) == [agent]
    assert queue.hold([flag.pk], by=admin, now=NOW) == 0
    queue.let_go([flag.pk], by=admin)
    assert not queue.claim(flag=flag, by=admin, now=NOW)
    queue.let_go([flag.pk], by=agent)
    assert queue.claim(flag=flag, by=admin, now=NOW)


def test_a_card_can_be_taken_over_while_it_is_open(agent, admin):
    flag = FlagFactory()
    queue.claim(flag=flag, by=admin, now=NOW)

    assert queue.take_over(flag=flag, by=agent, now=NOW)
    assert not queue.claim(flag=flag, by=admin, now=NOW)
    review.dismiss(flag=flag, by=agent, now=NOW)
    assert not queue.take_over(flag=flag, by=admin, now=NOW)


def test_the_day_is_counted(agent, admin):
    for by in (agent, agent, admin):
        review.dismiss(flag=FlagFactory(), by=by)
    review.skip(flag=FlagFactory(), by=agent)
    review.undo(review=review.dismiss(flag=FlagFactory(), by=agent), by=agent)

    counted = queue.today(agent, left=1)
    assert (counted.mine, counted.all, counted.left) == (2, 3, 1)


@pytest.mark.django_db(transaction=True)
def test_two_agents_at_one_queue_decide_each_of_two_hundred_cards_once(agent, admin):
    release = ReleaseFactory()
    flags = [FlagFactory(release=release, probability=1 - i / 1000) for i in range(200)]
    together, decided = Barrier(2), {agent.pk: [], admin.pk: []}

    def work(person):
        together.wait()
        while cards := queue.claim_next(person):
            review.dismiss(flag=cards[0], by=person)
            decided[person.pk].append(cards[0].pk)
        connection.close()

    threads = [Thread(target=work, args=[person]) for person in (agent, admin)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    one, other = decided.values()
    assert sorted(one + other) == sorted(flag.pk for flag in flags)
    assert min(len(one), len(other)) > 20


def test_what_is_claimed_next_is_what_the_queue_shows_first(agent, admin):
    rng = random.Random(4)
    questions = [QuestionFactory() for _ in range(14)]
    release = ReleaseFactory()
    for one, other in rng.sample(list(combinations(questions, 2)), 40):
        FlagFactory(older=one, newer=other, release=release, probability=rng.random())
    for duplicate, canonical in (questions[:2], questions[2:4], [questions[1], questions[4]]):
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    shown = list(queue.queue(agent))

    assert 5 < len(shown) < 40
    assert queue.claim_next(agent, count=len(shown) + 5) == shown
    for before, flag, after in zip(shown, shown[1:], shown[2:], strict=False):
        assert queue.neighbours(agent, flag) == (after.pk, before.pk)


def test_a_card_is_claimed_by_few_queries_however_long_the_queue(
    agent, django_assert_max_num_queries
):
    release = ReleaseFactory()
    for i in range(60):
        FlagFactory(release=release, probability=i / 100)

    with django_assert_max_num_queries(8):
        assert len(queue.claim_next(agent, count=3)) == 3
