"""A cluster decided as one card: by keyboard alone, and without a script."""

import re
import time

import pytest

from dedup.models import Flag
from tests.dedup.test_cluster import Case

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def case():
    """Five that are one, and F, which only E is a little like."""
    return Case("ABCDEF", AB=0.97, BC=0.94, AD=0.93, DE=0.9, CD=0.86, EF=0.82)


def go_on(visitor, key):
    with visitor.page.expect_navigation():
        visitor.page.keyboard.press(key)
    visitor.page.wait_for_load_state("networkidle")


def test_five_are_merged_one_is_let_out_and_all_taken_back_by_keyboard_alone(visit, admin, case):
    visitor = visit(admin)
    visitor.open(f"/review/{case['AB'].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    go_on(visitor, "g")
    assert visitor.path() == f"/review/{case['AB'].pk}/cluster/"
    visitor.page.keyboard.press("n")  # of nothing in particular
    for _ in range(6):
        visitor.page.keyboard.press("j")
    visitor.page.keyboard.press("n")
    visitor.page.keyboard.press("k")
    visitor.page.keyboard.press("w")
    go_on(visitor, "d")
    assert case.threads() == {"E": "ABCDE", "F": "F"}

    visitor.page.get_by_text("6 decided together: ").wait_for()
    go_on(visitor, "u")
    assert visitor.path() == "/review/"
    assert case.threads() == {letter: letter for letter in "ABCDEF"}


def test_a_member_that_was_let_out_is_taken_in_again_by_its_key(visit, admin, case):
    visitor = visit(admin)
    visitor.open(f"/review/{case['AB'].pk}/cluster/")
    for key in ("j", "j", "n", "j", "s", "k", "g"):  # B is out, C is left open, B is in again
        visitor.page.keyboard.press(key)
    go_on(visitor, "d")

    assert case.threads() == {"A": "ABDEF", "C": "C"}


def test_without_a_script_a_cluster_is_a_form(visit, agent, case):
    visitor = visit(agent, java_script_enabled=False)
    visitor.open(f"/review/{case['AB'].pk}/")
    visitor.page.get_by_role("link", name="Decide them together").click()
    visitor.page.get_by_role("group", name="Is “Question F?” the same?").get_by_label(
        re.compile("Not the same")
    ).check()
    visitor.page.get_by_role("button", name="Decide all together").click()

    assert Flag.objects.to_merge().count() == 5
    assert case["EF"].status == "dismissed"


def test_the_pairs_of_a_page_are_held_while_it_is_open_and_no_longer(visit, agent, case):
    visitor = visit(agent)
    visitor.open(f"/review/{case['AB'].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    go_on(visitor, "g")
    assert Flag.objects.filter(claimed_by=agent).count() == 6

    visitor.open("/")
    deadline = time.monotonic() + 10
    while Flag.objects.filter(claimed_by=agent).exists() and time.monotonic() < deadline:
        visitor.page.wait_for_timeout(20)
    assert not Flag.objects.filter(claimed_by=agent).exists()
