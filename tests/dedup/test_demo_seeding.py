"""What the demo's people find when they come in."""

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db.models import F
from django.utils import timezone

from dedup.management.demo import seeding, text
from support import answering, notifications
from support.models import Question, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def few(monkeypatch):
    """The demo with a few of its questions: all of them take their time."""
    written = text.seed()
    asked = [row for row in written["questions"] if row["asked_by"] == "customer"]
    written["questions"] = [row for row in asked if not row.get("merged")][:3]
    monkeypatch.setattr(text, "seed", lambda: written)


def test_the_demos_people_have_confirmed_addresses_and_hear_of_what_is_new(few):
    assert seeding.seed_portal() == 3
    confirmed = EmailAddress.objects.filter(verified=True, primary=True, email=F("user__email"))
    assert set(confirmed.values_list("user", flat=True)) == set(
        User.objects.values_list("pk", flat=True)
    )
    assert notifications.send_due(now=timezone.now()) == 0  # nothing of what happened long ago

    agent = User.objects.get(username="agent")
    question = Question.objects.filter(asked_by__username="customer").first()
    answering.post_answer(question=question, body="Turn it.", by=agent)
    notifications.send_due(now=timezone.now())

    customer = User.objects.get(username="customer")
    assert [customer.email] in [message.to for message in mail.outbox]
    assert seeding.seed_portal() == 0
