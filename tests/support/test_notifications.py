import smtplib
from datetime import timedelta

import pytest
from django.core import mail
from django.core.mail.backends import locmem
from django.utils import timezone

from support import answering, merging, notifications
from support.models import Notification, Question, User
from tests.factories import (
    AnswerFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

UNDO = timedelta(seconds=notifications.UNDO_SECONDS)


@pytest.fixture
def pair():
    older, newer = QuestionFactory(), QuestionFactory()
    return newer, older


def merged(pair, by, now=None):
    return merging.merge(duplicate=pair[0], canonical=pair[1], by=by, now=now)


def addressed():
    return sorted(address for message in mail.outbox for address in message.to)


def states():
    return sorted(Notification.objects.values_list("status", flat=True))


def test_a_merge_is_told_after_half_a_minute_and_only_once(pair, admin):
    now = timezone.now()
    merged(pair, admin, now)

    assert notifications.send_due(now=now + UNDO - timedelta(seconds=1)) == 0
    assert notifications.send_due(now=now + UNDO) == 2
    assert notifications.send_due(now=now + 2 * UNDO) == 0
    assert addressed() == sorted(question.asked_by.email for question in pair)


def test_a_merge_that_was_undone_by_then_is_never_told(pair, admin):
    now = timezone.now()
    edge = merged(pair, admin, now)
    merging.unmerge(merge=edge, by=admin)

    assert notifications.send_due(now=now + UNDO) == 0
    assert mail.outbox == []


def test_a_merge_that_is_undone_while_its_mails_are_claimed_is_not_told(pair, admin):
    edge = merged(pair, admin)
    merging.unmerge(merge=edge, by=admin)
    edge.notifications.update(status=Notification.Status.WAITING)  # as the claim had read it

    assert notifications.send_due(now=timezone.now() + UNDO) == 0
    assert states() == ["cancelled", "cancelled"]


def test_a_merge_that_is_undone_and_done_again_is_told_once(pair, admin):
    now = timezone.now()
    merging.unmerge(merge=merged(pair, admin, now), by=admin)
    merged(pair, admin, now)

    assert notifications.send_due(now=now + UNDO) == 2


def test_an_unmerge_after_the_mails_left_sends_nothing_more(pair, admin):
    now = timezone.now()
    edge = merged(pair, admin, now)
    notifications.send_due(now=now + UNDO)

    merging.unmerge(merge=edge, by=admin)
    merging.restore(merge=edge, by=admin)

    assert notifications.send_due(now=now + 10 * UNDO) == 0
    assert states() == ["sent", "sent"]


def test_who_merges_who_wants_no_mail_and_who_left_are_not_told(pair, admin):
    newer, older = pair
    SubscriptionFactory(question=newer, subscriber=admin)
    SubscriptionFactory(question=newer, subscriber=UserFactory(wants_mail=False))
    SubscriptionFactory(question=newer, subscriber=UserFactory(is_active=False))
    SubscriptionFactory(question=newer, subscriber=UserFactory(confirmed=False))
    SubscriptionFactory(question=older)  # follows what stays: nothing changes for them

    told = notifications.told_of_merge(newer, older, by=admin)

    assert told == sorted([newer.asked_by, older.asked_by], key=lambda person: person.pk)


def test_askers_and_followers_below_the_duplicate_are_told_too(pair, admin):
    newer, older = pair
    below = SubscriptionFactory()
    merging.merge(duplicate=below.question, canonical=newer, by=admin)

    told = notifications.told_of_merge(newer, older, by=admin)

    assert {below.subscriber, below.question.asked_by} <= set(told)


def test_an_address_that_was_confirmed_and_then_changed_is_written_to_no_more(admin):
    follower = SubscriptionFactory()
    answering.post_answer(question=follower.question, body="Turn it.", by=admin)
    User.objects.filter(pk=follower.subscriber_id).update(email="other@example.com")

    assert notifications.send_due(now=timezone.now()) == 0
    assert states() == ["cancelled"]


def test_answers_from_before_a_merge_are_not_sent_again(pair, admin):
    newer, older = pair
    SubscriptionFactory(question=older)
    answering.post_answer(question=newer, body="Turn it.", by=UserFactory())
    before = Notification.objects.filter(kind="answer").count()

    merged(pair, admin)

    assert Notification.objects.filter(kind="answer").count() == before


def test_followers_anywhere_in_a_thread_hear_once_of_an_answer_but_not_its_writer(pair, admin):
    newer, older = pair
    both = UserFactory()
    for question in pair:
        SubscriptionFactory(question=question, subscriber=both)
    elsewhere = SubscriptionFactory(question=newer).subscriber
    writer = SubscriptionFactory(question=older).subscriber
    merged(pair, admin)

    answering.post_answer(question=older, body="Turn it.", by=writer)

    told = Notification.objects.filter(kind="answer").values_list("recipient", flat=True)
    assert sorted(told) == sorted([both.pk, elsewhere.pk])


def test_a_mail_about_what_its_reader_may_no_longer_see_is_not_sent():
    question = QuestionFactory()
    SubscriptionFactory(question=question)
    SubscriptionFactory(question=question, subscriber=question.asked_by)
    answering.post_answer(question=question, body="Turn it.", by=UserFactory())
    Question.objects.update(audience="private")

    notifications.send_due(now=timezone.now())

    assert addressed() == [question.asked_by.email]


def test_an_answer_is_told_with_its_text_in_a_subject_of_one_line():
    question = QuestionFactory(title="Dark\r\nBcc: others@example.com")
    SubscriptionFactory(question=question)

    answering.post_answer(question=question, body="Turn <it> & wait.", by=UserFactory())
    notifications.send_due(now=timezone.now())

    (message,) = mail.outbox
    assert "\n" not in message.subject
    assert message.bcc == []
    assert "Turn <it> & wait." in message.body
    assert f"{question.get_absolute_url()}#answer-" in message.body


def test_a_merge_mail_says_how_to_object(pair, admin):
    now = timezone.now()
    merged(pair, admin, now)

    notifications.send_due(now=now + UNDO)

    said = {message.to[0]: message.body for message in mail.outbox}
    assert "Mine is different" in said[pair[0].asked_by.email]
    assert "Mine is different" not in said[pair[1].asked_by.email]


@pytest.mark.parametrize(
    "person", [{"wants_mail": False}, {"is_active": False}, {"confirmed": False}]
)
def test_a_writer_who_wants_no_mail_or_left_is_not_told_of_an_acceptance(person):
    answer = AnswerFactory(written_by=UserFactory(**person))
    asker = answer.question.asked_by

    answering.accept_answer(question=answer.question, answer=answer, by=asker)

    assert not Notification.objects.exists()


def test_an_acceptance_of_ones_own_answer_is_no_news():
    question = QuestionFactory()
    answer = AnswerFactory(question=question, written_by=question.asked_by)

    answering.accept_answer(question=question, answer=answer, by=question.asked_by)

    assert not Notification.objects.exists()


class Failing(locmem.EmailBackend):
    """A mail server that fails as `error` says: when it is called, or with each mail."""

    error = None
    is_absent = False

    def open(self):
        if self.is_absent:
            raise self.error
        return True

    def send_messages(self, messages):
        raise self.error


def failing(settings, monkeypatch, error, *, is_absent=False):
    settings.EMAIL_BACKEND = f"{__name__}.Failing"
    monkeypatch.setattr(Failing, "error", error)
    monkeypatch.setattr(Failing, "is_absent", is_absent)


def test_mails_wait_while_the_server_cannot_be_reached(pair, admin, settings, monkeypatch):
    now = timezone.now()
    merged(pair, admin, now)
    works = settings.EMAIL_BACKEND
    failing(settings, monkeypatch, ConnectionRefusedError(), is_absent=True)

    with pytest.raises(ConnectionRefusedError):
        notifications.send_due(now=now + UNDO)
    assert states() == ["waiting", "waiting"]

    settings.EMAIL_BACKEND = works
    assert notifications.send_due(now=now + 2 * UNDO) == 2


def test_a_server_that_hangs_up_leaves_one_mail_unknown_and_the_others_waiting(
    pair, admin, settings, monkeypatch
):
    now = timezone.now()
    merged(pair, admin, now)
    failing(settings, monkeypatch, smtplib.SMTPServerDisconnected())

    assert notifications.send_due(now=now + UNDO) == 0
    assert states() == ["sending", "waiting"]

    failing(settings, monkeypatch, ConnectionRefusedError(), is_absent=True)
    with pytest.raises(ConnectionRefusedError):
        notifications.send_due(now=now + timedelta(hours=1))
    assert states() == ["unknown", "waiting"]


def test_an_address_that_is_refused_holds_no_other_mail_up(pair, admin, settings, monkeypatch):
    now = timezone.now()
    merged(pair, admin, now)
    failing(settings, monkeypatch, smtplib.SMTPRecipientsRefused({}))

    assert notifications.send_due(now=now + UNDO) == 0
    assert states() == ["sending", "sending"]
