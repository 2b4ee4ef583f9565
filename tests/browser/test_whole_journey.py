"""The longest way: a guest asks, hears, replies by mail, is merged, objects and is given back."""

import re
from datetime import timedelta
from email.message import EmailMessage

import pytest
from django.core import mail
from django.utils import timezone

from dedup.models import Flag
from support import guests, inbound, notifications
from support.models import Answer, InboundMail, MergeGrant, Question
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ADDRESS = "ada@example.org"
ASKED = "How do I change the bulb of my lamp?"
AGAIN = "How can I change my lamp's bulb?"


def mails_of(address, *, after=timedelta()):
    """What lies in a person's mailbox once all that is due by then has left."""
    now = timezone.now() + after
    guests.send_due(now=now)
    notifications.send_due(now=now)
    return [one for one in mail.outbox if one.to == [address]]


def path_in(message):
    """The first address of this site in a mail."""
    return re.search(r"http://localhost:8000(\S+)", message.body)[1]


def reply(message, text):
    """What a mail program makes of "reply"."""
    written = EmailMessage()
    written["From"], written["To"] = message.to[0], message.reply_to[0]
    written["Subject"] = f"Re: {message.subject}"
    written["Message-ID"] = "<one@mail.example.org>"
    written["In-Reply-To"] = message.extra_headers["Message-ID"]
    quoted = "\n".join(f"> {line}" for line in message.body.splitlines())
    written.set_content(f"{text}\n\nOn Saturday AskOnce wrote:\n{quoted}\n")
    return written.as_bytes()


@pytest.fixture
def older():
    question = QuestionFactory(title=ASKED)
    AnswerFactory(question=question, body="Turn it to the **left**.")
    return question


@pytest.mark.parametrize("with_script", [True, False])
def test_a_guest_asks_hears_replies_is_merged_objects_and_is_given_back(
    visit, older, agent, settings, with_script
):
    settings.INBOUND_DOMAIN = "reply.example.com"
    MergeGrant.objects.create(agent=agent, product=older.product)

    guest = visit(java_script_enabled=with_script)
    guest.open("/ask/")
    guest.page.fill("#id_title", AGAIN)
    guest.page.select_option("#id_product", label="Lamp")
    guest.page.get_by_label("Your mail address").fill(ADDRESS)
    if with_script:
        guest.page.locator("#similar-found li").get_by_role("link", name=ASKED).wait_for()
    guest.page.get_by_role("button", name="Send the question").click()
    if not with_script:
        guest.page.get_by_role("button", name="Mine is different").first.click()
    guest.page.get_by_role("heading", name="look into your mail").wait_for()
    assert not Question.objects.filter(title=AGAIN).exists()

    guest.open(path_in(mails_of(ADDRESS)[-1]))
    guest.page.get_by_role("button", name="Yes, send the question").click()
    guest.page.get_by_text("Your question is received.").wait_for()
    newer = Question.objects.get(title=AGAIN)
    assert guest.path() == newer.get_absolute_url()

    helper = visit(agent, java_script_enabled=with_script)
    helper.open(newer.get_absolute_url())
    helper.page.fill("#id_body", "Which lamp is it?")
    helper.page.get_by_role("button", name="Send the answer").click()
    helper.page.locator(".answer", has_text="Which lamp is it?").wait_for()

    heard = mails_of(ADDRESS)[-1]
    assert "Which lamp is it?" in heard.body
    inbound.receive(reply(heard, "The one with two bulbs."), now=timezone.now())
    guest.open(newer.get_absolute_url())
    guest.page.locator(".answer", has_text="The one with two bulbs.").wait_for()
    assert "Which lamp is it?" not in Answer.objects.latest("pk").body
    assert InboundMail.objects.get().answer == Answer.objects.latest("pk")

    flag = FlagFactory(older=older, newer=newer)  # as the check would
    helper.open(f"/review/{flag.pk}/")
    helper.page.get_by_role("button", name="Duplicate", exact=False).first.click()
    helper.page.locator(".recent", has_text="Duplicate").wait_for()

    told = mails_of(ADDRESS, after=timedelta(seconds=31))[-1]
    assert "was asked before" in told.body
    guest.open(path_in(told))
    guest.page.get_by_text("was asked before").wait_for()
    assert guest.path() == older.get_absolute_url()
    guest.page.locator(".answer", has_text="The one with two bulbs.").wait_for()
    guest.page.locator(".came-from summary").click()
    guest.page.fill("#dispute-reason", "Mine has two bulbs.")
    guest.page.get_by_role("button", name="Have it looked at again").click()
    guest.page.get_by_text("Our team will look at it again.").wait_for()

    helper.open(f"/review/{flag.pk}/")
    helper.page.get_by_text("Mine has two bulbs.").wait_for()
    helper.page.get_by_role("button", name="Not a duplicate").first.click()
    helper.page.locator(".recent", has_text="Not a duplicate").wait_for()

    flag.refresh_from_db()
    newer.refresh_from_db()
    assert (flag.status, newer.canonical) == (Flag.Status.DISMISSED, None)
    guest.open(newer.get_absolute_url())
    assert guest.path() == newer.get_absolute_url()
    guest.page.locator(".answer", has_text="The one with two bulbs.").wait_for()
    guest.open(older.get_absolute_url())
    assert guest.page.locator(".answer", has_text="two bulbs").count() == 0
