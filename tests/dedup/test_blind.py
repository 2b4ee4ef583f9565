"""Cards without a score: which come, how they look, and that known cases change nothing."""

import random
import re
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from dedup import blind, desk, feedback, precedent, queue, review
from dedup.models import BlindItem, Flag, Review
from dedup.queue import Filter
from support import asking, merging
from support.models import Acceptance, AuditEntry, Merge, Notification, Question
from tests.factories import (
    AnswerFactory,
    FlagFactory,
    ProductFactory,
    QuestionFactory,
    ReleaseFactory,
    SubscriptionFactory,
    VoteFactory,
)
from tests.fakes import KNOWN, NEITHER, SAMPLED, Dice

pytestmark = pytest.mark.django_db

NOW = timezone.now()
VERDICTS = list(Review.Verdict.values)


def decided(by, verdict="dismissed", **given):
    """A pair that somebody decided."""
    return decide(FlagFactory(**given), by, verdict)


def decide(flag, by, verdict):
    if verdict == "confirmed":
        review.confirm(flag=flag, canonical=flag.older, by=by)
    else:
        review.dismiss(flag=flag, by=by, is_related=verdict == "related")
    flag.refresh_from_db()
    return flag


def sampled(**given):
    return FlagFactory(**{"lane": Flag.Lane.SAMPLED, "probability": 0.31, **given})


def drawn_for(person, **given):
    return blind.draw(person, **{"chance": random.Random(1), "now": timezone.now(), **given})


def everything():
    """All rows that a decision could change."""
    kept = (Flag, Review, Merge, Question, AuditEntry, Notification)
    return [list(model.objects.order_by("pk").values()) for model in kept]


def text(answer):
    return answer.content.decode()


def at(flag, route="review_card"):
    return reverse(route, args=[flag.pk])


# Which pairs are known cases


def test_what_another_decided_is_a_known_case_and_how_probable_it_was_is_kept(agent, admin):
    flags = [decided(admin), decided(admin, "related"), decided(admin, "confirmed")]
    item = drawn_for(agent)

    assert item.flag in flags
    assert (item.by, item.expected, item.verdict) == (agent, item.flag.status, "")
    assert item.asked_share == pytest.approx(blind.KNOWN_SHARE / 3)


def test_nobody_is_asked_what_they_decided_passed_on_or_merged_themselves(agent, admin):
    flag = FlagFactory()
    review.skip(flag=flag, by=agent)
    review.confirm(flag=flag, canonical=flag.older, by=admin)
    decided(agent)
    assert drawn_for(agent) is None

    waiting = decided(agent, "confirmed")
    desk.merge(duplicate=waiting.newer, canonical=waiting.older, by=admin)
    taken_back = review.dismiss(flag=FlagFactory(), by=admin)
    review.dismiss(flag=review.undo(review=taken_back, by=admin), by=agent)
    assert drawn_for(admin).flag not in {waiting, flag, taken_back.flag}


def test_what_is_open_disputed_or_edited_since_is_no_known_case(agent, admin):
    FlagFactory()
    review.undo(review=review.dismiss(flag=FlagFactory(), by=admin), by=admin)
    merged = decided(admin, "confirmed")
    desk.dispute(question=merged.newer, by=merged.newer.asked_by, reason="Mine is square")
    review.confirm(flag=merged, canonical=merged.older, by=admin)
    edited = decided(admin)
    asking.edit_question(
        question=edited.newer, title="Said otherwise", body="", audience="public",
        by=edited.newer.asked_by, seen=1,
    )  # fmt: skip

    assert drawn_for(agent) is None


def test_a_merge_that_was_taken_back_later_makes_its_pair_a_known_case_of_two_that_differ(
    agent, admin
):
    flag = decided(admin, "confirmed")
    later = timezone.now() + timedelta(hours=1)
    desk.unmerge(merge=Merge.objects.get(), by=admin, now=later)
    flag.refresh_from_db()

    assert flag.status == Flag.Status.DISMISSED
    assert drawn_for(agent, now=later).expected == Flag.Status.DISMISSED


def test_a_case_comes_back_until_it_is_answered_and_never_after(agent, admin):
    first = decided(admin)
    item = drawn_for(agent)
    decided(admin)

    assert drawn_for(agent) == item
    assert drawn_for(agent, held=[first.pk]).flag != first
    for _ in range(2):
        blind.answer(item=drawn_for(agent), verdict="skipped", by=agent)
    assert drawn_for(agent) is None


def test_each_case_is_drawn_as_often_as_another(agent, admin):
    flags = [decided(admin) for _ in range(4)]
    chance, counts = random.Random(5), dict.fromkeys([flag.pk for flag in flags], 0)
    for _ in range(120):
        item = drawn_for(agent, chance=chance)
        counts[item.flag_id] += 1
        item.delete()

    assert min(counts.values()) > 17


def test_a_filter_by_product_and_language_holds_for_known_cases(agent, admin):
    german = decided(admin, newer=QuestionFactory(language="de"))
    decided(admin, newer=QuestionFactory(language="en", product=ProductFactory(slug="door")))

    assert drawn_for(agent, wanted=Filter(language="de")).flag == german
    assert drawn_for(agent, wanted=Filter(language="fr")) is None


# Which cards come


def test_about_two_in_fifty_cards_are_known_cases_and_two_from_below_the_threshold(agent, admin):
    release = ReleaseFactory()
    known = {decided(admin, release=release).pk for _ in range(3)}
    low = sampled(release=release)
    flag = FlagFactory(release=release)
    chance, dealt = random.Random(7), []
    for _ in range(1500):
        dealt += [card.pk for card in blind.deal(agent, chance=chance)]

    assert set(dealt) == {*(known & set(dealt)), low.pk, flag.pk}
    assert 42 <= sum(pk in known for pk in dealt) <= 78  # 60 expected, sd 7.6
    assert 42 <= dealt.count(low.pk) <= 78


def test_of_several_cards_each_may_be_one_and_what_is_not_shown_is_let_go(agent, admin):
    case, low = decided(admin), sampled()
    flags = [FlagFactory(probability=p) for p in (0.9, 0.8, 0.7)]
    dealt = blind.deal(agent, count=3, chance=Dice(KNOWN, NEITHER, SAMPLED))

    assert dealt == [case, flags[0], low]
    held = Flag.objects.filter(claimed_by=agent)
    assert set(held) == {flags[0], low}


def test_a_case_is_not_dealt_twice_at_once_nor_what_the_page_has(agent, admin):
    case, flags = decided(admin), [FlagFactory(probability=p) for p in (0.9, 0.8)]

    assert blind.deal(agent, count=3, chance=Dice(KNOWN)) == [case, *flags]
    assert blind.deal(agent, held=[case.pk], chance=Dice(KNOWN)) == flags[:1]


def test_an_empty_queue_is_done_whatever_could_still_be_asked(agent, admin):
    decided(admin)
    sampled()

    assert blind.deal(agent, count=3, chance=Dice(KNOWN, SAMPLED)) == []


@pytest.mark.parametrize("words", ["band=perhaps", "age=week", "who=free"])
def test_a_filter_that_tells_of_scores_or_people_brings_none(agent, admin, words):
    decided(admin)
    sampled()
    flag = FlagFactory()
    wanted = Filter.parse(dict([words.split("=")]))

    for thrown in (KNOWN, SAMPLED):
        assert blind.deal(agent, wanted, chance=Dice(thrown)) == [flag]


@pytest.mark.django_db(transaction=True)
def test_two_people_at_once_never_get_the_same_pair_from_below_the_threshold(agent, admin):
    release = ReleaseFactory()
    for _ in range(40):
        sampled(release=release)
    FlagFactory.create_batch(2, release=release)
    together, seen = Barrier(2), {agent.pk: [], admin.pk: []}

    def work(person):
        together.wait()
        for _ in range(15):
            (card,) = blind.deal(person, chance=Dice(SAMPLED))
            seen[person.pk].append(card.pk)
            review.dismiss(flag=card, by=person)
        connection.close()

    threads = [Thread(target=work, args=[person]) for person in (agent, admin)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    one, other = seen.values()
    assert len({*one, *other}) == len(one) + len(other) == 30


# What an answer does


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("stood", ["confirmed", "dismissed"])
def test_what_is_said_of_a_known_case_changes_nothing_but_the_case(
    client, agent, admin, verdict, stood
):
    flag = decided(admin, stood)
    item = drawn_for(agent)
    before = everything()
    counted, like = queue.today(agent, left=0), precedent.like_it(flag, 1)
    client.force_login(agent)
    given = {"verdict": verdict, "canonical": flag.older_id, "snooze": "hour", "note": "?"}
    answer = client.post(at(flag, "review_decide"), given)

    assert answer.status_code == 302
    item.refresh_from_db()
    assert item.verdict == verdict
    assert item.decided_at is not None
    assert everything() == before
    assert (queue.today(agent, left=0), precedent.like_it(flag, 1)) == (counted, like)


def test_a_known_case_is_answered_once_and_by_who_was_asked(agent, admin):
    decided(admin)
    item = drawn_for(agent)
    with pytest.raises(review.NotYours):
        blind.answer(item=item, verdict="dismissed", by=admin)
    blind.answer(item=item, verdict="dismissed", by=agent)

    with pytest.raises(blind.AnsweredAlready):
        blind.answer(item=item, verdict="confirmed", by=agent)
    item.refresh_from_db()
    assert item.verdict == "dismissed"


def test_the_second_answer_to_a_case_is_a_conflict(client, agent, admin):
    flag = decided(admin)
    drawn_for(agent)
    client.force_login(agent)
    client.post(at(flag, "review_decide"), {"verdict": "related"})
    answer = client.post(at(flag, "review_decide"), {"verdict": "dismissed"})

    assert answer.status_code == 409
    assert "You have said already" in text(answer)
    assert BlindItem.objects.get().verdict == "related"


def test_no_answer_at_all_is_asked_for_again(client, agent, admin):
    flag = decided(admin)
    drawn_for(agent)
    client.force_login(agent)
    answer = client.post(at(flag, "review_decide"), {"verdict": "nonsense"})

    assert answer.status_code == 400
    assert "Without its score" in text(answer)
    assert BlindItem.objects.get().verdict == ""


def test_a_case_that_is_opened_again_meanwhile_is_decided_like_any_pair(client, agent, admin):
    flag = decided(admin)
    drawn_for(agent)
    review.undo(review=Review.objects.get(), by=admin)
    client.force_login(agent)
    client.post(at(flag, "review_decide"), {"verdict": "related"})

    flag.refresh_from_db()
    assert flag.status == Flag.Status.RELATED
    assert BlindItem.objects.get().verdict == ""


def test_a_pair_from_below_the_threshold_is_decided_like_any_and_becomes_a_label(client, agent):
    flag = sampled(asked_share=0.02)
    client.force_login(agent)
    versions = {f"version-{pk}": 1 for pk in flag.question_ids}
    given = {"verdict": "confirmed", "canonical": flag.older_id} | versions
    client.post(at(flag, "review_decide"), given)

    flag.refresh_from_db()
    assert (flag.status, flag.lane, flag.asked_share) == ("confirmed", "sampled", 0.02)
    assert [one.label for one in feedback.labels()] == [1.0]


# How a card looks


def skeleton(page, *flags):
    """A card without what is a pair's own: texts, numbers of rows, times."""
    page = page[page.index("<article") : page.rindex("</article>")]
    for flag in flags:
        for question in (flag.older, flag.newer):
            page = page.replace(str(question.title), "")
    page = re.sub(r"<time[^>]*>[^<]*</time>|<bdi.*?</bdi>|<mark[^>]*>|</mark>", "", page)
    return re.sub(r"\d+|value=\"[^\"]*\"|\s+", " ", page)


def lived_in(flag):
    """Answers, votes and followers on both sides."""
    for question in (flag.older, flag.newer):
        AnswerFactory(question=question, body="Turn it.")
        VoteFactory(question=question)
        SubscriptionFactory(question=question)


@pytest.mark.parametrize("stood", ["confirmed", "dismissed", "related"])
@pytest.mark.parametrize("role", ["agent", "other_admin"])
def test_a_known_case_looks_like_a_pair_from_below_the_threshold(
    client, request, agent, admin, role, stood
):
    person = request.getfixturevalue(role)
    low, case = sampled(), FlagFactory()
    lived_in(low)
    lived_in(case)
    decide(case, admin, stood)
    assert (Merge.objects.count() == 1) == (stood == "confirmed")
    drawn_for(person)
    client.force_login(person)
    pages = [text(client.get(at(flag))) for flag in (low, case)]

    assert all("Without its score" in page for page in pages)
    one, other = (skeleton(page, low, case) for page in pages)
    assert one == other


@pytest.fixture
def other_admin(agent, admin):
    agent.groups.set(admin.groups.all())
    return agent


def test_a_merged_case_shows_two_questions_as_they_were(client, agent, admin):
    flag = FlagFactory(
        older=QuestionFactory(title="Where is the switch?"),
        newer=QuestionFactory(title="No switch here"),
    )
    behind = AnswerFactory(question=flag.newer, body="Behind the door.")
    review.confirm(flag=flag, canonical=flag.older, by=admin)
    AnswerFactory(question=flag.older, body="The other person has it already.")
    Acceptance.objects.create(question=flag.older, answer=behind)
    merging.merge(duplicate=QuestionFactory(title="Came along"), canonical=flag.older, by=admin)
    drawn_for(agent)
    client.force_login(agent)
    page = text(client.get(at(flag)))

    assert page.count("Behind the door.") == 1
    for betrayed in (
        "Accepted", "Merged already", "merged into", "Came along", "has it already",
        "This pair is closed", "Said before", str(admin.username), "/manage/unmerge/",
        f"/questions/{flag.older_id}/",
        f"/questions/{flag.newer_id}/", "Somebody has said",
    ):  # fmt: skip
        assert betrayed not in page, betrayed


def test_nobody_sees_a_score_before_deciding(client, agent, admin):
    for i in range(12):
        decided(admin, probability=0.3 + i / 1000)
    low = sampled(probability=0.3137)
    case = drawn_for(agent).flag
    FlagFactory(older=low.newer, probability=0.9137)
    FlagFactory(older=case.newer, probability=0.9137)
    client.force_login(agent)

    for flag in (low, case):
        page = text(client.get(at(flag)))
        card = page[page.index("<article") : page.rindex("</article>")]
        assert "Other candidates" in card
        assert not re.search(r"\d+ %|<meter|like this, people|likely|Perhaps|Hardly", card)
        assert 'data-action="previous"' not in card  # its place in the queue would tell


def test_programs_and_djangos_admin_do_not_tell_a_score_either(client, admin):
    low = sampled()
    client.force_login(admin)
    listed = client.get("/api/v1/flags/").json()["results"]

    assert listed == []
    assert client.get(f"/api/v1/flags/{low.pk}/").status_code == 404
    assert at(low) not in text(client.get(reverse("admin:dedup_flag_changelist")))
    review.dismiss(flag=low, by=admin)
    assert client.get(f"/api/v1/flags/{low.pk}/").json()["status"] == "dismissed"
    assert at(low) in text(client.get(reverse("admin:dedup_flag_changelist")))


def test_a_preview_of_many_tells_no_score_either(client, agent):
    low, flag = sampled(), FlagFactory()
    client.force_login(agent)
    given = {"flag": [low.pk, flag.pk], "verdict": "dismissed"}
    page = text(client.post(reverse("review_many"), given))

    assert flag.newer.title in page
    assert low.newer.title not in page


def test_only_who_was_asked_sees_a_case_as_open(client, agent, admin):
    flag = decided(admin)
    drawn_for(agent)
    client.force_login(admin)

    assert "This pair is closed: Not a duplicate." in text(client.get(at(flag)))


# What is revealed


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("dismissed", "decided “Related, not the same” before, as you see it."),
        ("confirmed", "decided “Related, not the same” before. That still stands."),
        ("skipped", "decided “Related, not the same” before. That still stands."),
    ],
)
@pytest.mark.parametrize("header", [{}, {"X-Desk": "1"}])
def test_after_the_answer_it_is_said_what_had_been_decided(
    client, agent, admin, verdict, words, header
):
    flag = decided(admin, "related")
    FlagFactory()
    drawn_for(agent)
    client.force_login(agent)
    given = {"verdict": verdict, "canonical": flag.older_id}
    page = text(client.post(at(flag, "review_decide"), given, headers=header, follow=True))

    assert words in page
    assert 'data-action="undo"' not in page
    assert "This pair is closed: Related" in text(client.get(at(flag)))


@pytest.mark.parametrize(
    ("language", "words"), [("en", "The machine gave it 31 %"), ("fi", "The machine had put it")]
)
@pytest.mark.parametrize("header", [{}, {"X-Desk": "1"}])
def test_after_the_decision_on_a_pair_from_below_the_score_is_said(
    client, agent, language, words, header
):
    low = sampled(newer=QuestionFactory(language=language))
    client.force_login(agent)

    def say(verdict):
        address, given = at(low, "review_decide"), {"verdict": verdict}
        return text(client.post(address, given, headers=header, follow=True))

    assert "The machine" not in say("skipped")
    page = say("dismissed")

    assert words in page
    assert reverse("review_undo", args=[Review.objects.latest("pk").pk]) in page


def test_the_next_card_may_be_a_known_case(client, agent, admin, dice):
    case = decided(admin)
    FlagFactory()
    dice.thrown = [KNOWN]
    client.force_login(agent)

    assert client.get(reverse("review_next"))["Location"] == at(case)
    assert f'data-card="{case.pk}"' in text(client.get(reverse("review_ahead")))
