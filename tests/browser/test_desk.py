"""The review desk: many cards by keyboard, two people at once, without a script, right to left."""

import re
import time
from statistics import median

import pytest

from dedup import queue, review
from dedup.models import BlindItem, Flag, Review
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory
from tests.fakes import KNOWN, NEITHER, SAMPLED

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def pairs():
    release = ReleaseFactory(is_active=True)
    return [
        FlagFactory(
            release=release, probability=0.99 - i / 100,
            older=QuestionFactory(title=f"Where is switch {i}?"),
            newer=QuestionFactory(title=f"I cannot find switch {i}"),
        )
        for i in range(25)
    ]  # fmt: skip


def card_of(visitor):
    return int(visitor.page.get_attribute("[data-card]", "data-card"))


def until_stored(visitor, count):
    """The page goes on before the decision has arrived; rows come a moment later."""
    deadline = time.monotonic() + 10
    while Review.objects.standing().count() < count and time.monotonic() < deadline:
        visitor.page.wait_for_timeout(20)  # the browser's requests pass through this process
    assert Review.objects.standing().count() == count


def press_and_wait(visitor, key):
    """Press a key, wait for another card; how long it took, in seconds."""
    before = card_of(visitor)
    begun = time.perf_counter()
    visitor.page.keyboard.press(key)
    visitor.page.wait_for_selector(f"[data-card]:not([data-card='{before}'])")
    return time.perf_counter() - begun


def close_keys(visitor):
    visitor.page.keyboard.press("Escape")
    visitor.page.wait_for_function("!document.activeElement.closest('dialog')")


def test_twenty_cards_are_decided_by_keyboard_alone(visit, agent, pairs, record_property):
    visitor = visit(agent)
    visitor.open("/review/")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("[data-card]")
    visitor.page.wait_for_load_state("networkidle")
    verdicts = {"d": "confirmed", "n": "dismissed", "r": "related", "s": "skipped"}
    meant, spent = {}, []
    for key in "dnrsd" * 4:
        meant[card_of(visitor)] = verdicts[key]
        spent.append(press_and_wait(visitor, key))
    until_stored(visitor, 20)

    assert dict(Review.objects.values_list("flag", "verdict")) == meant
    assert card_of(visitor) not in meant
    assert visitor.path() == f"/review/{card_of(visitor)}/"
    record_property("key_to_card_ms", {"p50": 1000 * median(spent), "worst": 1000 * max(spent)})


def test_the_last_decision_is_taken_back_from_the_toast(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    press_and_wait(visitor, "n")
    visitor.page.get_by_text("Not a duplicate.", exact=True).wait_for()
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press("u")

    assert visitor.path() == f"/review/{pairs[0].pk}/"
    assert Review.objects.standing().count() == 0


def test_two_people_at_one_queue_decide_each_card_once(visit, agent, admin, pairs):
    one, other = visit(agent), visit(admin)
    for visitor in (one, other):
        visitor.open("/review/next/")
        visitor.page.wait_for_load_state("networkidle")
    seen = {one: [card_of(one)], other: [card_of(other)]}
    for _ in range(9):
        for visitor in (one, other):
            press_and_wait(visitor, "n")
            seen[visitor].append(card_of(visitor))
    until_stored(one, 18)

    assert not set(seen[one]) & set(seen[other])
    assert Review.objects.values("flag").distinct().count() == 18


def test_a_decision_that_was_not_stored_is_said_and_can_be_looked_at(visit, agent, admin, pairs):
    visitor = visit(agent)
    visitor.expected.add(409)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    faster = visit(admin)
    faster.open(f"/review/{pairs[0].pk}/")
    faster.page.wait_for_load_state("networkidle")
    faster.page.keyboard.press("d")
    until_stored(faster, 1)

    press_and_wait(visitor, "n")
    visitor.page.get_by_text("A decision was not stored.").wait_for()
    with visitor.page.expect_navigation():
        visitor.page.get_by_role("link", name="Look at it again").click()
    assert visitor.path() == f"/review/{pairs[0].pk}/"
    assert Review.objects.count() == 1


def test_later_and_a_second_opinion_go_by_keys(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    visitor.page.keyboard.press("h")
    visitor.page.keyboard.press("ArrowDown")  # from tomorrow to in a week
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector(f"[data-card='{pairs[1].pk}']")
    visitor.page.keyboard.press("f")
    visitor.page.keyboard.type("d or n?")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector(f"[data-card='{pairs[2].pk}']")
    until_stored(visitor, 2)

    snoozed, unsure = Flag.objects.filter(pk__in=[pairs[0].pk, pairs[1].pk]).order_by("pk")
    assert 6 < (snoozed.snoozed_until - snoozed.flagged_at).days < 8
    assert (unsure.unsure, unsure.unsure_by) == ("d or n?", agent)
    assert not Review.objects.filter(verdict__in=Review.DECISIONS).exists()


def test_keys_can_be_changed_and_go_back(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    visitor.page.keyboard.press("?")
    visitor.page.get_by_label("Not a duplicate", exact=True).press("x")
    close_keys(visitor)
    press_and_wait(visitor, "x")
    until_stored(visitor, 1)
    assert Review.objects.get().verdict == "dismissed"

    visitor.page.keyboard.press("?")
    visitor.page.get_by_role("button", name="Back to the first keys").click()
    close_keys(visitor)
    press_and_wait(visitor, "n")
    until_stored(visitor, 2)


def test_the_question_mark_opens_and_closes_the_keys_and_changes_none(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.keyboard.press("?")
    visitor.page.locator("#keys").wait_for()
    visitor.page.keyboard.press("?")
    visitor.page.locator("#keys").wait_for(state="hidden")

    assert visitor.page.evaluate("localStorage.length") == 0


def test_a_card_that_somebody_has_is_taken_over_by_a_key(visit, agent, admin, pairs):
    queue.claim(flag=pairs[0], by=admin)
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.get_by_text("is looking at this pair just now").wait_for()
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press("c")
    visitor.page.wait_for_load_state("networkidle")

    pairs[0].refresh_from_db()
    assert pairs[0].claimed_by == agent


def test_the_palette_finds_an_action_by_its_name(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    visitor.page.keyboard.press("Control+k")
    visitor.page.keyboard.type("not a dup")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector(f"[data-card='{pairs[1].pk}']")
    until_stored(visitor, 1)

    assert Review.objects.get().verdict == "dismissed"


def test_a_known_case_comes_between_other_cards_and_is_told_apart_only_when_answered(
    visit, agent, admin, pairs, dice
):
    review.confirm(flag=pairs[3], canonical=pairs[3].older, by=admin)
    low = FlagFactory(lane=Flag.Lane.SAMPLED, probability=0.3)
    dice.thrown = [NEITHER, KNOWN, SAMPLED, NEITHER]
    visitor = visit(agent)
    visitor.open("/review/next/")
    visitor.page.wait_for_load_state("networkidle")
    shown = [card_of(visitor)]
    for key in "nnd":
        press_and_wait(visitor, key)
        shown.append(card_of(visitor))
        assert visitor.path() == f"/review/{shown[-1]}/"
    visitor.page.get_by_text("decided “Duplicate” before. That still stands.").wait_for()
    visitor.page.get_by_text("The machine gave it 30 %, below its threshold.").wait_for()

    assert shown == [pairs[0].pk, pairs[3].pk, low.pk, pairs[1].pk]
    assert BlindItem.objects.get().verdict == "dismissed"
    verdicts = Review.objects.filter(by=agent).values_list("flag", "verdict")
    assert dict(verdicts) == {pairs[0].pk: "dismissed", low.pk: "confirmed"}
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press("u")  # what can be undone is the pair from below, not the case
    assert visitor.path() == f"/review/{low.pk}/"


def test_a_known_case_is_answered_without_a_script(visit, agent, admin, pairs, dice):
    review.dismiss(flag=pairs[3], by=admin)
    dice.thrown = [KNOWN, NEITHER]
    visitor = visit(agent, java_script_enabled=False)
    visitor.open("/review/next/")
    assert visitor.path() == f"/review/{pairs[3].pk}/"
    visitor.page.get_by_role("button", name=re.compile("^Not a duplicate")).click()
    visitor.page.get_by_text("as you see it.").wait_for()

    assert visitor.path() == f"/review/{pairs[0].pk}/"
    assert BlindItem.objects.get().verdict == "dismissed"


def test_without_a_script_everything_goes_by_forms(visit, agent, pairs):
    visitor = visit(agent, java_script_enabled=False)
    visitor.open("/review/")
    visitor.page.get_by_role("link", name="Start with the likeliest").click()
    visitor.page.get_by_role("button", name=re.compile("^Not a duplicate")).click()
    assert visitor.path() == f"/review/{pairs[1].pk}/"
    visitor.page.get_by_role("button", name=re.compile("^Undo")).click()
    assert visitor.path() == f"/review/{pairs[0].pk}/"

    visitor.page.locator("summary", has_text="Second opinion").click()
    visitor.page.get_by_label("What is unclear").fill("Which switch?")
    visitor.page.get_by_role("button", name="Ask somebody else").click()
    assert visitor.path() == f"/review/{pairs[1].pk}/"
    assert Review.objects.standing().get().note == "Which switch?"


def test_many_are_decided_at_once_after_a_preview(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open("/review/")
    for pair in pairs[:3]:
        visitor.page.locator(f"input[name=flag][value='{pair.pk}']").check()
    visitor.page.get_by_role("button", name="Not duplicates …").click()
    visitor.page.locator(f"input[name=flag][value='{pairs[1].pk}']").uncheck()
    visitor.page.get_by_role("button", name="Do it, all or none").click()
    visitor.page.get_by_text("2 decided together.").wait_for()
    visitor.page.wait_for_load_state("load")
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press("u")

    assert Review.objects.standing().count() == 0


def test_who_leaves_lets_the_cards_go(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    assert Flag.objects.filter(claimed_by=agent).count() == 3

    visitor.open("/")
    deadline = time.monotonic() + 10
    while Flag.objects.filter(claimed_by=agent).exists() and time.monotonic() < deadline:
        visitor.page.wait_for_timeout(20)
    assert not Flag.objects.filter(claimed_by=agent).exists()
