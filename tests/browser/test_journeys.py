"""From a question asked twice to a merge, and back again: as people do it."""

import pytest

from dedup.models import Flag
from support.models import Question
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ASKED = "How do I change the bulb of my lamp?"
AGAIN = "How can I change my lamp's bulb?"


@pytest.fixture
def older():
    question = QuestionFactory(title=ASKED)
    AnswerFactory(question=question, body="Turn it to the **left**.")
    return question


def flag_for(older):
    """What the check would find of the question that was asked again."""
    return FlagFactory(older=older, newer=Question.objects.get(title=AGAIN))


def test_a_question_asked_twice_is_found_merged_and_given_back(
    visit, older, customer, agent, admin
):
    asker = visit()
    asker.sign_in(customer)
    asker.open("/ask/")
    asker.page.fill("#id_title", AGAIN)
    found = asker.page.locator("#similar-found li")
    found.get_by_role("link", name=ASKED).wait_for()
    assert "Answered" in found.first.inner_text()
    assert asker.page.inner_text("#similar-status").startswith("1 similar question found.")

    asker.page.select_option("#id_product", label="Lamp")
    asker.page.get_by_role("button", name="Send the question").click()
    asker.page.get_by_text("Your question is received.").wait_for()
    flag = flag_for(older)

    reviewer = visit(agent)
    reviewer.open("/review/next/")
    reviewer.page.get_by_role("heading", name=AGAIN).wait_for()
    with reviewer.page.expect_navigation():
        reviewer.page.keyboard.press("d")
    reviewer.page.locator(".recent", has_text="Duplicate").wait_for()
    flag.refresh_from_db()
    assert flag.status == Flag.Status.CONFIRMED

    merger = visit(admin)
    merger.open("/manage/merges/")
    merger.page.get_by_role("link", name="See what merging").click()
    merger.page.fill("#reason", "Both ask for the bulb.")
    merger.page.get_by_role("button", name="Merge", exact=True).click()
    merger.page.get_by_text("Merged. It can be taken back").wait_for()

    asker.open(flag.newer.get_absolute_url())
    asker.page.get_by_text("was asked before").wait_for()
    assert asker.path() == older.get_absolute_url()
    asker.page.get_by_text("Mine is different").wait_for()

    merger.page.get_by_role("link", name="Take it back").click()
    merger.page.get_by_role("button", name="Take it back").click()
    merger.page.get_by_text("Taken back.").wait_for()
    asker.open(flag.newer.get_absolute_url())
    assert asker.path() == flag.newer.get_absolute_url()


def test_the_same_way_can_be_gone_without_javascript(visit, older, customer, agent, admin):
    asker = visit(java_script_enabled=False)
    asker.sign_in(customer)
    asker.open("/ask/")
    asker.page.fill("#id_title", AGAIN)
    asker.page.select_option("#id_product", label="Lamp")
    asker.page.get_by_role("button", name="Send the question").click()
    asker.page.get_by_text("these look like your question").wait_for()
    assert not Question.objects.filter(title=AGAIN).exists()
    asker.page.get_by_role("button", name="Mine is different, send it").click()
    asker.page.get_by_text("Your question is received.").wait_for()
    flag = flag_for(older)

    reviewer = visit(agent, java_script_enabled=False)
    reviewer.open("/review/")
    reviewer.page.get_by_role("link", name="Start with the likeliest").click()
    reviewer.page.get_by_role("button", name="Duplicate", exact=False).first.click()
    reviewer.page.locator(".recent", has_text="Duplicate").wait_for()

    merger = visit(admin, java_script_enabled=False)
    merger.open("/manage/merges/")
    merger.page.get_by_role("link", name="See what merging").click()
    merger.page.get_by_role("button", name="Merge", exact=True).click()
    merger.page.get_by_role("link", name="Take it back").wait_for()

    asker.open(flag.newer.get_absolute_url())
    asker.page.locator(".came-from summary").click()
    asker.page.fill("#dispute-reason", "Mine has two bulbs.")
    asker.page.get_by_role("button", name="Have it looked at again").click()
    asker.page.get_by_text("Our team will look at it again.").wait_for()

    merger.open(f"/review/{flag.pk}/")
    merger.page.get_by_text("Mine has two bulbs.").wait_for()
    merger.page.get_by_role("button", name="Not a duplicate").click()
    asker.open(flag.newer.get_absolute_url())
    assert asker.path() == flag.newer.get_absolute_url()


def test_a_guest_reads_searches_and_is_led_to_the_sign_in(visit, older):
    guest = visit()
    guest.open("/?q=bulb+lamp")
    guest.page.get_by_role("link", name=ASKED).click()
    guest.page.get_by_text("Turn it to the left.").wait_for()
    guest.page.get_by_role("main").get_by_role("link", name="Sign in").click()
    assert guest.path() == "/accounts/login/"


def test_what_a_search_does_not_find_is_asked_with_the_same_words(visit, customer):
    asker = visit(customer)
    asker.open("/?q=Does+it+float%3F")
    asker.page.get_by_text("Nobody has asked this yet").wait_for()
    asker.page.get_by_role("link", name="Ask this instead").click()
    assert asker.page.input_value("#id_title") == "Does it float?"
