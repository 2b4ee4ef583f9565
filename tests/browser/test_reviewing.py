"""The review card by keyboard, and by two people at once."""

import pytest

from dedup.models import Flag, Review
from tests.factories import FlagFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def pair():
    return FlagFactory(
        older=QuestionFactory(title="Where is the switch?"),
        newer=QuestionFactory(title="I cannot find the switch"),
    )


@pytest.fixture
def reviewer(visit, agent, pair):
    visitor = visit(agent)
    visitor.open(f"/review/{pair.pk}/")
    return visitor


def press(visitor, key):
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press(key)


@pytest.mark.parametrize(
    ("key", "status"),
    [("d", Flag.Status.CONFIRMED), ("n", Flag.Status.DISMISSED), ("s", Flag.Status.OPEN)],
)
def test_a_key_decides_and_u_takes_it_back(reviewer, pair, key, status):
    press(reviewer, key)
    pair.refresh_from_db()
    assert pair.status == status
    assert Review.objects.standing().count() == 1

    press(reviewer, "u")
    pair.refresh_from_db()
    assert pair.status == Flag.Status.OPEN
    assert Review.objects.standing().count() == 0
    assert reviewer.path() == f"/review/{pair.pk}/"


def test_w_swaps_which_one_stays(reviewer, pair):
    assert reviewer.page.input_value("input[name=canonical]:checked") == str(pair.older_id)
    reviewer.page.keyboard.press("w")
    press(reviewer, "d")

    assert Review.objects.get().canonical_id == pair.newer_id


def test_j_and_k_walk_through_the_queue_without_deciding(reviewer, pair):
    next_pair = FlagFactory(probability=0.85)
    reviewer.page.reload()
    press(reviewer, "j")
    assert reviewer.path() == f"/review/{next_pair.pk}/"
    press(reviewer, "k")
    assert reviewer.path() == f"/review/{pair.pk}/"

    reviewer.open("/review/")
    reviewer.page.keyboard.press("j")
    reviewer.page.keyboard.press("j")
    press(reviewer, "Enter")
    assert reviewer.path() == f"/review/{next_pair.pk}/"
    assert Review.objects.count() == 0


def test_the_question_mark_shows_the_keys_and_they_can_be_switched_off(reviewer, pair):
    reviewer.page.keyboard.press("?")
    reviewer.page.get_by_role("heading", name="Keys").wait_for()
    with reviewer.page.expect_response("**/account/keys/"):
        reviewer.page.get_by_label("Use keys").uncheck()
    reviewer.page.keyboard.press("?")
    assert not reviewer.page.locator("#keys").is_visible()

    reviewer.page.reload()
    reviewer.page.keyboard.press("n")
    reviewer.page.keyboard.press("?")
    reviewer.page.get_by_role("heading", name="Keys").wait_for()
    pair.refresh_from_db()
    assert pair.status == Flag.Status.OPEN


def test_keys_are_left_alone_with_a_modifier_and_behind_the_overlay(reviewer, pair):
    reviewer.page.keyboard.press("Control+d")
    reviewer.page.keyboard.press("Alt+n")
    reviewer.page.keyboard.press("?")
    reviewer.page.keyboard.press("n")

    reviewer.page.get_by_role("heading", name="Keys").wait_for()
    assert reviewer.path() == f"/review/{pair.pk}/"
    assert Review.objects.count() == 0


def test_keys_are_left_alone_where_somebody_types(reviewer, pair):
    reviewer.page.evaluate(
        "document.querySelector('main').append(document.createElement('textarea'))"
    )
    reviewer.page.locator("main > textarea").press_sequentially("dns")

    assert reviewer.page.locator("main > textarea").input_value() == "dns"
    assert Review.objects.count() == 0


def test_who_is_slower_is_told_who_decided_what_and_when(reviewer, visit, admin, pair):
    faster = visit(admin)
    faster.open(f"/review/{pair.pk}/")
    faster.page.get_by_text("is looking at this pair just now").wait_for()
    press(faster, "n")

    reviewer.expected.add(409)
    press(reviewer, "d")
    refused = reviewer.page.get_by_role("alert")
    assert f"{admin} said “Not a duplicate”, just now" in refused.inner_text()
    assert reviewer.page.get_by_role("button", name="Duplicate").count() == 0


def test_a_question_edited_meanwhile_is_not_merged_unseen(visit, admin, pair):
    merger = visit(admin)
    merger.open(f"/review/{pair.pk}/")
    pair.newer.version += 1
    pair.newer.save()

    merger.expected.add(409)
    press(merger, "d")
    merger.page.get_by_text("Nothing has been stored.").wait_for()
    pair.refresh_from_db()
    assert pair.status == Flag.Status.OPEN
