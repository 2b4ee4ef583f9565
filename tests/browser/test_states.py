"""What pages show when there is nothing, too much, or something wrong: each is a page, too.

With `ASKONCE_PICTURES=FOLDER` each state is kept as a picture too, wide and narrow, light and dark.
"""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from dedup import queue, review
from support import outbox
from support.models import OutboxEntry
from tests.browser.test_pages import complaints, unfit_for_a_phone
from tests.factories import FlagFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

PICTURES = os.environ.get("ASKONCE_PICTURES", "")
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


@pytest.fixture
def looked_at(request):
    """Look at a page with axe, in both colours, on a phone too; keep pictures where wanted."""

    def look(page, name):
        wrong = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            wrong += [f"{name}, {scheme}: {one}" for one in complaints(page)]
            for size, (width, height) in SIZES.items() if PICTURES else ():
                page.set_viewport_size({"width": width, "height": height})
                page.screenshot(path=Path(PICTURES) / f"{name}-{size}-{scheme}.png", full_page=True)
        wrong += [f"{name}: {one}" for one in unfit_for_a_phone(page)]
        assert wrong == [], "\n".join(wrong)

    return look


@pytest.fixture
def sit_down(visit):
    """Open a page for somebody, where some statuses are to be expected."""

    def open_for(person, path, *expected):
        visitor = visit(person, reduced_motion="reduce")
        visitor.expected |= set(expected)
        visitor.open(path)
        return visitor.page

    return open_for


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/review/", "Nothing waits. Every pair has been looked at."),
        ("/review/?band=hardly", "Nothing like this waits"),
        ("/manage/merges/", "Nothing waits to be merged"),
        ("/", "No questions here yet"),
        ("/mine/", "You have not asked anything yet"),
        ("/?q=a+lamp+that+nobody+has", "Nobody has asked this yet"),
    ],
)
def test_where_there_is_nothing_the_page_says_so(sit_down, looked_at, agent, path, words):
    page = sit_down(agent, path)

    assert words in page.inner_text("main")
    looked_at(page, f"empty{path.replace('/', '-').replace('?', '-')}")


def test_while_checks_wait_an_empty_queue_says_that_pairs_may_come(sit_down, looked_at, agent):
    outbox.put(QuestionFactory(), now=timezone.now())
    page = sit_down(agent, "/review/")

    assert "Pairs appear here as soon as the checks that wait are done." in page.inner_text("main")
    looked_at(page, "empty-checks-wait")


def test_when_no_worker_checks_agents_see_that_it_is_late_and_customers_nothing(
    sit_down, looked_at, agent, customer
):
    outbox.put(QuestionFactory(), now=timezone.now() - timedelta(hours=1))
    late = "The duplicate check is late."
    page = sit_down(agent, "/review/")
    assert late in page.inner_text("body")
    looked_at(page, "worker-down")

    assert late not in sit_down(customer, "/").inner_text("body")


def test_a_question_whose_check_failed_is_listed_as_unchecked(sit_down, looked_at, agent):
    outbox.put(QuestionFactory(), now=timezone.now())
    OutboxEntry.objects.update(quarantined_at=timezone.now(), failure="FloatingPointError")
    page = sit_down(agent, "/review/")

    assert "Nobody knows whether they have duplicates." in page.inner_text("main")
    looked_at(page, "unchecked")


def test_a_decision_that_came_too_late_shows_whose_stands_and_how_to_overrule_it(
    sit_down, looked_at, agent, admin
):
    flag = FlagFactory()
    page = sit_down(agent, f"/review/{flag.pk}/", 409)
    page.wait_for_load_state("networkidle")
    review.dismiss(flag=flag, by=admin)
    page.keyboard.press("r")
    page.get_by_text("Somebody was faster").wait_for()
    assert "Not a duplicate" in page.inner_text("[role=alert]")
    looked_at(page, "conflict")

    page.set_viewport_size({"width": 1280, "height": 900})
    page.keyboard.press("o")
    looked_at(page, "overrule")
    with page.expect_navigation():
        page.get_by_role("button", name="Related, not the same").click()
    flag.refresh_from_db()
    assert flag.status == "related"


def test_a_card_that_somebody_has_says_who(sit_down, looked_at, agent, admin):
    flag = FlagFactory()
    queue.claim(flag=flag, by=admin)
    page = sit_down(agent, f"/review/{flag.pk}/")

    assert "is looking at this pair just now" in page.inner_text("main")
    looked_at(page, "somebody-has-it")


def test_while_the_next_card_is_on_its_way_the_page_says_so(sit_down, looked_at, agent):
    flags = FlagFactory.create_batch(2)
    page = sit_down(agent, f"/review/{flags[0].pk}/")
    page.wait_for_load_state("networkidle")
    held = []  # answers of the server that are kept waiting
    page.route("**/review/*/decide/", lambda route: held.append(route))
    for _ in flags:
        page.keyboard.press("n")
    page.get_by_text("The next pair is on its way.").wait_for()
    looked_at(page, "loading")

    with page.expect_navigation():  # to the queue: nothing is left
        for route in held:
            route.continue_()
    assert review.Review.objects.count() == 2


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/review/", 403, "This page is not for you"),
        ("/questions/999/", 404, "There is nothing here"),
    ],
)
def test_a_refused_page_says_what_it_can(sit_down, looked_at, customer, path, status, words):
    page = sit_down(customer, path, status)

    assert words in page.inner_text("main")
    looked_at(page, f"refused-{status}")


def test_a_page_that_breaks_says_so_and_tells_nothing_of_why(
    sit_down, looked_at, agent, monkeypatch
):
    def broken(*_args, **_kwargs):
        raise RuntimeError("a secret")

    monkeypatch.setattr(queue, "queue", broken)
    page = sit_down(agent, "/review/", 500)

    assert "Something broke on our side" in page.inner_text("main")
    assert "secret" not in page.content()
    looked_at(page, "broken-500")
