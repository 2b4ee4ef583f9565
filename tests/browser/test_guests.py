"""Somebody without an account asks, confirms, reads the answer, and comes back."""

import re

import pytest
from django.core import mail
from django.utils import timezone

from support import answering, guests, notifications
from support.models import Question
from tests.factories import ProductFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

TITLE = "Why does my lamp hum at night?"
ADDRESS = "ada@example.org"


def mailed_link():
    guests.send_due(now=timezone.now())
    return re.search(r"http://localhost:8000(\S+)", mail.outbox[-1].body)[1]


@pytest.mark.parametrize("with_script", [True, False])
def test_a_guest_asks_confirms_and_hears_of_the_answer(visit, agent, with_script):
    ProductFactory()
    guest = visit(java_script_enabled=with_script)
    guest.open("/ask/")
    guest.page.fill("#id_title", TITLE)
    guest.page.select_option("#id_product", label="Lamp")
    guest.page.get_by_label("Private").check()
    guest.page.get_by_label("Your mail address").fill(ADDRESS)
    guest.page.get_by_role("button", name="Send the question").click()
    guest.page.get_by_role("heading", name="look into your mail").wait_for()
    assert ADDRESS in guest.page.inner_text("main")
    assert not Question.objects.exists()

    guest.open(mailed_link())
    guest.page.get_by_role("heading", name=TITLE).wait_for()
    guest.page.get_by_role("button", name="Yes, send the question").click()
    guest.page.get_by_text("Your question is received.").wait_for()
    assert guest.path() == Question.objects.get().get_absolute_url()

    answering.post_answer(question=Question.objects.get(), body="Turn it.", by=agent)
    notifications.send_due(now=timezone.now())
    assert (mail.outbox[-1].to, "Turn it." in mail.outbox[-1].body) == ([ADDRESS], True)


def test_a_guest_follows_and_comes_back_with_a_code(visit):
    question = QuestionFactory(title=TITLE)
    guest = visit()
    guest.open(question.get_absolute_url())
    guest.page.fill("#follow-email", ADDRESS)
    guest.page.get_by_role("button", name="Follow by mail").click()
    guest.page.get_by_role("heading", name="look into your mail").wait_for()
    guest.open(mailed_link())
    guest.page.get_by_role("button", name="Yes, follow it").click()
    guest.page.get_by_role("button", name="Following 1").wait_for()

    later = visit()
    later.open("/accounts/login/")
    later.page.get_by_role("link", name="Send me a sign-in code").click()
    later.page.fill("input[name=email]", ADDRESS)
    later.page.locator("main form button.primary").click()
    later.page.locator("input[name=code]").wait_for()
    code = re.search(r"(?m)^([A-Z0-9]+-?[A-Z0-9]+)$", mail.outbox[-1].body)[1]
    later.page.fill("input[name=code]", code)
    later.page.locator("main form button.primary").first.click()
    later.page.get_by_text("Guest").first.wait_for()
    later.open("/mine/")
    later.page.get_by_role("link", name=TITLE).wait_for()


def test_similar_questions_appear_for_guests_too(visit):
    QuestionFactory(title="Why does the dimmer hum at night?")
    QuestionFactory(title="Why does the dimmer hum at night, doctor?", audience="private")
    guest = visit()
    guest.open("/ask/")
    guest.page.fill("#id_title", "My dimmer hums at night")
    guest.page.get_by_text("1 similar question found.").wait_for()

    assert "doctor" not in guest.page.inner_text("main")
