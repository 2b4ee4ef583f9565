"""Guests who click twice, or in two mails at once: with real connections."""

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core import mail
from django.db import transaction
from django.utils import timezone

from support import guests
from support.models import GuestRequest, Question, User
from tests.factories import ProductFactory
from tests.support.test_merging_races import FEW, raced

pytestmark = pytest.mark.django_db(transaction=True)


def asked(email="ada@example.org"):
    return guests.GuestRequest.objects.create(
        email=email, kind="question", title="Why does it hum?", product=ProductFactory()
    )


def confirming(waiting):
    return lambda: guests.confirm(request=waiting, by=AnonymousUser(), now=timezone.now())


def test_ten_clicks_at_once_send_one_question():
    for number in range(FEW):
        waiting = asked(f"ada{number}@example.org")

        results = raced(*[confirming(waiting)] * 10)

        assert len({result.question for result in results}) == 1
        assert sum(result.person is not None for result in results) == 1
    assert Question.objects.count() == FEW


def test_two_mails_of_one_address_at_once_make_one_guest():
    for number in range(FEW):
        pair = [asked(f"ada{number}@example.org") for _ in range(2)]

        results = raced(*map(confirming, pair))

        assert len({result.person for result in results}) == 1
        assert len({result.question for result in results}) == 2
    assert User.objects.count() == FEW


def test_two_workers_send_each_mail_once():
    for number in range(FEW):
        asked(f"ada{number}@example.org")

    sent = raced(*[lambda: guests.send_due(now=timezone.now())] * 4)

    assert sum(sent) == FEW
    assert sorted(message.to[0] for message in mail.outbox) == sorted(
        GuestRequest.objects.values_list("email", flat=True)
    )


def test_a_click_that_meets_the_tidying_is_done_or_gone():
    for _ in range(FEW):
        waiting = asked()
        before = Question.objects.count()

        def forget(pk=waiting.pk):
            with transaction.atomic():
                return GuestRequest.objects.filter(pk=pk).delete()

        done, _ = raced(confirming(waiting), forget)

        assert isinstance(done, guests.Confirmed | guests.LinkGone)
        assert Question.objects.count() - before == isinstance(done, guests.Confirmed)
