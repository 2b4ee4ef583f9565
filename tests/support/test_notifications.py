import os
import signal
import smtplib
import socketserver
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from django.core import mail
from django.core.mail.backends import locmem
from django.db import connection
from django.utils import timezone

from support import answering, mailing, merging, notifications, outbox
from support.models import Notification, Question, User
from tests.factories import (
    AnswerFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
)
from tests.support.test_merging_races import raced

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
    SubscriptionFactory(question=newer, subscriber=UserFactory(mail_pace="none"))
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
    "person", [{"mail_pace": "none"}, {"is_active": False}, {"confirmed": False}]
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
    assert states() == ["refused", "refused"]


def test_a_server_that_is_busy_gets_a_mail_again_later_each_time_after_a_longer_pause(
    pair, admin, settings, monkeypatch
):
    now = timezone.now()
    merged(pair, admin, now)
    works = settings.EMAIL_BACKEND
    failing(settings, monkeypatch, smtplib.SMTPDataError(451, b"later"))

    assert notifications.send_due(now=now + UNDO) == 0
    assert states() == ["waiting", "waiting"]
    assert notifications.send_due(now=now + UNDO + timedelta(minutes=6)) == 0
    assert set(Notification.objects.values_list("attempts", flat=True)) == {2}

    settings.EMAIL_BACKEND = works
    assert notifications.send_due(now=now + UNDO + timedelta(minutes=15)) == 0
    assert notifications.send_due(now=now + UNDO + timedelta(minutes=17)) == 2


def test_a_server_that_is_always_busy_is_not_asked_for_ever(pair, admin, settings, monkeypatch):
    now = timezone.now()
    merged(pair, admin, now)
    failing(settings, monkeypatch, smtplib.SMTPDataError(451, b"later"))

    for day in range(1, 12):
        notifications.send_due(now=now + timedelta(days=day))

    assert states() == ["refused", "refused"]
    assert set(Notification.objects.values_list("attempts", flat=True)) == {8}


def test_a_daily_mail_that_was_put_off_does_not_wait_for_another_day(settings, monkeypatch):
    now = timezone.now()
    person = UserFactory(mail_pace="daily")
    question = SubscriptionFactory(subscriber=person).question
    answering.post_answer(question=question, body="Turn it.", by=UserFactory(), now=now)
    works, morning = settings.EMAIL_BACKEND, now + timedelta(days=1)
    failing(settings, monkeypatch, smtplib.SMTPDataError(451, b"later"))
    notifications.send_due(now=morning)

    settings.EMAIL_BACKEND = works

    assert notifications.send_due(now=morning + timedelta(minutes=6)) == 1


def test_news_rings_for_mail_once_it_is_committed(monkeypatch, django_capture_on_commit_callbacks):
    rung = []
    monkeypatch.setattr(outbox, "send", lambda task, **given: rung.append((task, given["queue"])))
    question = SubscriptionFactory().question

    with django_capture_on_commit_callbacks(execute=True):
        answer = answering.post_answer(question=question, body="Turn it.", by=UserFactory())
        assert rung == []
    with django_capture_on_commit_callbacks(execute=True):
        answering.accept_answer(question=question, answer=answer, by=question.asked_by)

    assert rung == [("support.tasks.send_notifications", "mail")] * 2


class Recording(locmem.EmailBackend):
    """A mail server that is slow, and notes whom it was given a mail for."""

    given = []

    def send_messages(self, messages):
        time.sleep(0.02)
        self.given.extend(address for message in messages for address in message.to)
        return len(messages)


@pytest.fixture
def recording(settings):
    settings.EMAIL_BACKEND = f"{__name__}.Recording"
    Recording.given.clear()
    return Recording.given


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pace", ["at_once", "daily"])
def test_many_that_send_at_the_same_moment_send_each_mail_once(recording, pace):
    now = timezone.now()
    people = [UserFactory(mail_pace=pace) for _ in range(12)]
    for question in (QuestionFactory(), QuestionFactory()):
        for person in people:
            SubscriptionFactory(question=question, subscriber=person)
        writer = UserFactory(mail_pace="none")
        answering.post_answer(question=question, body="Turn it.", by=writer, now=now)
    later = now + timedelta(days=1)

    results = raced(*[lambda: notifications.send_due(now=later)] * 4)
    while notifications.send_due(now=later):
        pass

    mails = 2 if pace == "at_once" else 1
    assert [result for result in results if isinstance(result, Exception)] == []
    assert sorted(recording) == sorted(person.email for person in people * mails)
    assert set(states()) == {"sent"}


def test_one_run_stops_early_enough_that_no_mail_is_cut_off(pair, admin, recording, monkeypatch):
    now = timezone.now()
    merged(pair, admin, now)
    monkeypatch.setattr(mailing, "SENDING_SECONDS", 0.01)

    assert notifications.send_due(now=now + UNDO) == 1
    assert states() == ["sent", "waiting"]
    assert notifications.send_due(now=now + UNDO) == 1


KILLED = """
import os, signal
import django
django.setup()
from django.utils import timezone
from support import mailing, notifications

hand_over = mailing.hand_over

def killed(message):
    if {is_taken}:
        hand_over(message)
    os.kill(os.getpid(), signal.SIGKILL)

mailing.hand_over = killed
notifications.send_due(now=timezone.now())
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_taken", [True, False])
@pytest.mark.parametrize("pace", ["at_once", "daily"])
def test_a_process_killed_while_it_hands_over_leaves_a_mail_unknown_and_nobody_gets_it_twice(
    is_taken, pace, tmp_path
):
    question, long_ago = QuestionFactory(), timezone.now() - timedelta(days=2)
    person = SubscriptionFactory(question=question, subscriber__mail_pace=pace).subscriber
    answering.post_answer(question=question, body="Turn it.", by=UserFactory(), now=long_ago)

    ran = subprocess.run(
        [sys.executable, "-c", KILLED.format(is_taken=is_taken)],
        env=os.environ | {"DATABASE_URL": database_url(), "EMAIL_URL": "console",
                          "DJANGO_SETTINGS_MODULE": "support.settings"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout.count(f"To: {person.email}") == is_taken
    assert states() == ["sending"]
    assert notifications.send_due(now=timezone.now()) == 0
    assert notifications.send_due(now=timezone.now() + timedelta(hours=1)) == 0
    assert states() == ["unknown"]
    assert mail.outbox == []


def database_url():
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    return f"{server}/{connection.settings_dict['NAME']}"


def test_an_admin_sees_what_was_perhaps_sent_but_no_text(admin, client):
    question = SubscriptionFactory(question__title="quokka").question
    answering.post_answer(question=question, body="numbat", by=UserFactory())
    Notification.objects.update(status="unknown")
    client.force_login(admin)

    listed = client.get("/admin/support/notification/?status__exact=unknown").content.decode()
    others = client.get("/admin/support/notification/?status__exact=sent").content.decode()

    assert "Perhaps sent" in listed
    assert "1 notification" in listed
    assert "0 notifications" in others
    assert "quokka" not in listed
    assert "numbat" not in listed


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks SMTP; refuses addresses with "nobody", hangs up on mails to "gone"."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Speaking)
        self.taken = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Speaking(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line + b"\r\n")

    def handle(self):
        recipient = b""
        self.say(b"220 here")
        for line in self.rfile:
            word = line[:4].upper().strip()
            if word == b"RCPT":
                recipient = line.partition(b"<")[2].partition(b">")[0]
            if word == b"DATA":
                self.say(b"354 go on")
                mail = b"".join(iter(self.rfile.readline, b".\r\n"))
                if b"gone" in recipient:
                    return
                self.server.taken.append((recipient.decode(), mail.decode()))
            is_refused = word == b"RCPT" and b"nobody" in recipient
            self.say(b"550 no such person" if is_refused else b"250 well")
            if word == b"QUIT":
                return


@pytest.fixture
def mail_server(settings):
    server = MailServer()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = server.server_address
    settings.EMAIL_USE_TLS, settings.EMAIL_HOST_USER = False, ""
    yield server
    server.shutdown()
    server.server_close()


def test_a_real_server_that_refuses_one_and_hangs_up_on_another_gets_each_mail_once(mail_server):
    question = QuestionFactory()
    for name in ("ada", "nobody", "grace", "gone", "late"):
        person = UserFactory(email=f"{name}@example.com")
        SubscriptionFactory(question=question, subscriber=person)
    answering.post_answer(question=question, body="Ça tourne.", by=UserFactory(mail_pace="none"))

    for hours in range(4):
        notifications.send_due(now=timezone.now() + timedelta(hours=hours))

    assert sorted(address for address, _ in mail_server.taken) == [
        "ada@example.com", "grace@example.com", "late@example.com"
    ]  # fmt: skip
    assert states() == ["refused", "sent", "sent", "sent", "unknown"]
    assert all("List-Unsubscribe-Post: List-Unsubscribe=One-Click" in text
               and "Ça tourne." in text for _, text in mail_server.taken)  # fmt: skip


def test_a_real_server_that_is_away_leaves_everything_waiting(mail_server):
    question = SubscriptionFactory().question
    answering.post_answer(question=question, body="Turn it.", by=UserFactory())
    mail_server.shutdown()
    mail_server.server_close()

    with pytest.raises(OSError, match="refused"):
        notifications.send_due(now=timezone.now())

    assert states() == ["waiting"]
