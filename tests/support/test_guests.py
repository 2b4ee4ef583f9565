"""What people without an account send, until they confirm their address, and afterwards."""

import smtplib
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import AnonymousUser
from django.core import mail, signing
from django.core.exceptions import ValidationError
from django.core.mail.backends import locmem
from django.db import IntegrityError
from django.utils import timezone

from support import answering, guests, mailing, merging, notifications, tasks
from support.celery import app
from support.models import (
    AuditEntry,
    GuestRequest,
    OutboxEntry,
    Question,
    Subscription,
    Usage,
    User,
)
from tests.factories import ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
ADDRESS = "ada@example.org"
NOBODY = AnonymousUser()


def asked(email=ADDRESS, *, client="192.0.2.1", now=None, **given):
    given = {"title": "Why does it hum?", "body": "At night.", "audience": "public"} | given
    return guests.put_question(
        email=email, product=ProductFactory(), client=client, now=now or timezone.now(), **given
    )


def follows(question, email=ADDRESS):
    return guests.put_follow(email=email, question=question, client="192.0.2.1", now=timezone.now())


def confirmed(waiting, by=NOBODY):
    return guests.confirm(request=waiting, by=by, now=timezone.now())


class TestPutting:
    def test_a_question_waits_and_is_nowhere_yet(self):
        waiting = asked()

        assert (waiting.title, waiting.confirmed_at) == ("Why does it hum?", None)
        assert not Question.objects.exists()
        assert not OutboxEntry.objects.exists()
        assert not User.objects.exists()

    @pytest.mark.parametrize(
        "wrong",
        [{"title": ""}, {"title": "\u200b"}, {"title": "x" * 201}, {"body": "x" * 20_001},
         {"body": "a\0b"}, {"audience": "all"}, {"email": "ada"}],
    )  # fmt: skip
    def test_what_no_question_may_be_is_not_kept(self, wrong):
        with pytest.raises(ValidationError):
            asked(**wrong)

        assert not GuestRequest.objects.exists()
        assert not Usage.objects.exists()

    def test_an_address_is_kept_as_all_others_are(self):
        assert asked(" Ada@Example.ORG ").email == ADDRESS

    def test_the_mail_speaks_the_language_that_the_page_spoke(self):
        assert asked().mail_language == "en"


class TestQuota:
    NOON = timezone.now().replace(minute=0, second=10, microsecond=0)

    def test_an_address_gets_five_mails_an_hour_wherever_they_are_asked_for(self):
        for number in range(5):
            asked(client=f"192.0.2.{number}", now=self.NOON)

        with pytest.raises(guests.TooMany) as refused:
            asked("ADA@example.org", client="192.0.2.9", now=self.NOON)

        assert refused.value.seconds == 3590
        assert GuestRequest.objects.count() == 5

    def test_a_client_has_twenty_sent_to_whomever(self):
        for number in range(20):
            asked(f"ada{number}@example.org", now=self.NOON)

        with pytest.raises(guests.TooMany):
            asked("ada20@example.org", now=self.NOON)

    def test_an_hour_later_it_is_free_again(self):
        for number in range(6):
            asked(now=self.NOON + timedelta(hours=number // 5))

        assert GuestRequest.objects.count() == 6

    def test_the_counters_are_no_list_of_addresses(self):
        asked()

        spenders = " ".join(Usage.objects.values_list("spender", flat=True))
        assert "ada" not in spenders
        assert "192" not in spenders


class TestMail:
    def test_one_mail_leaves_with_a_link_and_none_of_what_was_written(self):
        waiting = asked()

        assert guests.send_due(now=timezone.now()) == 1
        assert guests.send_due(now=timezone.now()) == 0

        (message,) = mail.outbox
        assert message.to == [ADDRESS]
        assert message.subject == "Please confirm your question"
        assert f"http://localhost:8000/confirm/{guests.token(waiting)}/" in message.body
        assert "hum" not in message.subject + message.body
        assert "At night" not in message.body

    def test_a_following_has_its_own_words(self):
        follows(QuestionFactory(title="Why does it hum?"))

        tasks.send_confirmations(some_new_keyword=1)

        assert mail.outbox[0].subject == "Please confirm that you want to follow a question"
        assert "hum" not in mail.outbox[0].body

    def test_after_a_crash_it_is_sent_again_for_else_the_question_is_lost(self, monkeypatch):
        asked()
        now = timezone.now()
        monkeypatch.setattr(mailing, "hand_over", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            guests.send_due(now=now)
        monkeypatch.undo()

        assert [guests.send_due(now=now + n * guests.PAUSE / 2) for n in range(4)] == [0, 0, 1, 0]

    def test_without_a_mail_server_all_wait(self, monkeypatch):
        asked()

        def away(_):
            raise ConnectionRefusedError

        monkeypatch.setattr(locmem.EmailBackend, "open", away)
        with pytest.raises(ConnectionRefusedError):
            guests.send_due(now=timezone.now())
        monkeypatch.undo()

        assert guests.send_due(now=timezone.now()) == 1

    def test_an_address_that_the_server_refuses_holds_up_nobody(self, monkeypatch):
        asked("refused@example.org")
        asked()
        send = locmem.EmailBackend.send_messages

        def refuse(backend, messages):
            if messages[0].to == ["refused@example.org"]:
                raise smtplib.SMTPRecipientsRefused({})
            return send(backend, messages)

        monkeypatch.setattr(locmem.EmailBackend, "send_messages", refuse)

        assert guests.send_due(now=timezone.now()) == 1

    def test_what_the_server_puts_off_is_tried_again_later(self, monkeypatch):
        asked()
        now = timezone.now()
        send, codes = locmem.EmailBackend.send_messages, [451]

        def greylist(backend, messages):
            if codes:
                raise smtplib.SMTPRecipientsRefused({"ada": (codes.pop(), b"later")})
            return send(backend, messages)

        monkeypatch.setattr(locmem.EmailBackend, "send_messages", greylist)

        assert [guests.send_due(now=now + n * guests.PAUSE / 2) for n in range(4)] == [0, 0, 1, 0]
        assert mail.outbox[0].extra_headers["Auto-Submitted"] == "auto-generated"

    def test_a_bell_is_rung_once_the_request_is_stored(
        self, monkeypatch, django_capture_on_commit_callbacks
    ):
        rung = []
        monkeypatch.setattr("support.outbox.send", rung.append)

        with django_capture_on_commit_callbacks(execute=True):
            asked()

        assert rung == ["support.tasks.send_confirmations"]

    def test_the_bell_and_the_round_name_the_task(self):
        rounds = {entry["task"] for entry in app.conf.beat_schedule.values()}

        assert tasks.send_confirmations.name == guests.SEND_TASK
        assert guests.SEND_TASK in rounds


class TestToken:
    def test_it_leads_to_its_request(self):
        waiting = asked()

        assert guests.read(guests.token(waiting)) == waiting

    @pytest.mark.parametrize(
        "forged",
        ["", "1", "MQ:1abc:x", signing.dumps(1)],
        ids=["nothing", "an id", "a made-up one", "one for something else"],
    )
    def test_no_other_one_does(self, forged):
        asked()

        with pytest.raises(signing.BadSignature):
            guests.read(forged)

    def test_after_three_days_it_has_ended(self, monkeypatch):
        token = guests.token(asked())
        later = timezone.now() + timedelta(days=3, seconds=5)
        monkeypatch.setattr("django.core.signing.time.time", later.timestamp)

        with pytest.raises(guests.LinkGone):
            guests.read(token)


class TestConfirming:
    def test_it_is_asked_by_a_guest_with_a_confirmed_address_and_no_password(self):
        done = confirmed(asked(audience="private"))

        question, guest = Question.objects.get(), User.objects.get()
        assert (done.question, done.person) == (question, guest)
        assert (question.title, question.body) == ("Why does it hum?", "At night.")
        assert (question.audience, question.asked_by) == ("private", guest)
        assert (guest.is_guest, guest.email) == (True, ADDRESS)
        assert not guest.has_usable_password()
        assert [group.name for group in guest.groups.all()] == ["customer"]
        assert EmailAddress.objects.get(user=guest, email=ADDRESS, primary=True).verified
        assert OutboxEntry.objects.filter(question=question).exists()
        assert Subscription.objects.filter(question=question, subscriber=guest).exists()

    def test_nobody_reads_the_address_in_the_name(self):
        guest = confirmed(asked()).person

        assert str(guest) == "Guest"
        assert "ada" not in guest.username

    def test_its_texts_are_forgotten_and_a_second_time_only_leads_there(self):
        waiting = asked()
        first = confirmed(waiting)

        again = confirmed(waiting)

        assert (again.question, again.person) == (first.question, None)
        assert Question.objects.count() == 1
        waiting.refresh_from_db()
        assert (waiting.title, waiting.body, waiting.product) == ("", "", None)

    def test_the_next_one_of_the_same_address_is_the_same_guests(self):
        people = {confirmed(asked()).person, confirmed(asked("ADA@example.org")).person}

        assert len(people) == 1

    def test_a_full_account_with_this_address_gets_the_question(self):
        person = UserFactory(email="Ada@Example.org")

        assert confirmed(asked()).person == person

    def test_an_account_gets_it_at_its_second_confirmed_address_too(self):
        person = UserFactory()
        EmailAddress.objects.create(user=person, email=ADDRESS, verified=True)

        assert confirmed(asked()).person == person

    def test_an_account_that_an_admin_made_has_its_address_confirmed_by_it(self):
        person = UserFactory(email=ADDRESS, confirmed=False)

        assert confirmed(asked()).person == person
        assert person.emailaddress_set.get().verified

    def test_who_signed_up_with_anothers_address_gets_nothing_of_its_owner(self):
        claimant = UserFactory(email=ADDRESS, confirmed=False)
        EmailAddress.objects.create(user=claimant, email=ADDRESS, primary=True)

        owner = confirmed(asked(audience="private")).person

        claimant.refresh_from_db()
        assert owner != claimant
        assert (claimant.email, claimant.emailaddress_set.count()) == ("", 0)
        assert not Question.objects.visible_to(claimant).exists()
        assert AuditEntry.objects.get(action="address_withdrawn").details == {"person": claimant.pk}

    def test_who_is_signed_in_and_reads_the_mail_shows_the_address_to_be_theirs(self):
        person = UserFactory(email=ADDRESS, confirmed=False)
        EmailAddress.objects.create(user=person, email=ADDRESS, primary=True)

        assert confirmed(asked(), by=person).person == person
        assert person.emailaddress_set.get().verified

    def test_who_may_not_come_in_any_more_asks_nothing(self):
        UserFactory(email=ADDRESS, is_active=False)

        with pytest.raises(guests.AccountClosed):
            confirmed(asked())

        assert not Question.objects.exists()

    def test_a_following_is_one(self):
        question = QuestionFactory()

        guest = confirmed(follows(question)).person

        assert question.subscriptions.get().subscriber == guest

    def test_a_question_that_became_private_meanwhile_is_not_followed(self):
        waiting = follows(QuestionFactory())
        Question.objects.update(audience="private")

        with pytest.raises(guests.LinkGone):
            confirmed(waiting)

        assert not User.objects.filter(is_guest=True).exists()

    def test_a_question_that_was_merged_meanwhile_is_followed_where_it_went(self, admin):
        duplicate, canonical = QuestionFactory(), QuestionFactory()
        waiting = follows(duplicate)
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

        guest = confirmed(waiting).person
        answering.post_answer(question=canonical, body="Turn it.", by=admin)
        notifications.send_due(now=timezone.now())

        assert [guest.email] in [message.to for message in mail.outbox]

    def test_what_was_tidied_away_is_gone(self):
        waiting = asked()
        GuestRequest.objects.all().delete()

        with pytest.raises(guests.LinkGone):
            confirmed(waiting)


def test_what_nobody_confirmed_in_three_days_is_forgotten():
    now = timezone.now()
    asked(now=now - timedelta(days=3, seconds=1))
    kept = asked(now=now - timedelta(days=2))

    tasks.tidy()

    assert list(GuestRequest.objects.all()) == [kept]


class TestTheDatabase:
    @pytest.mark.parametrize("what", [{"kind": "follow"}, {"kind": "question"},
                                      {"kind": "question", "title": "Why?"}])  # fmt: skip
    def test_refuses_a_request_that_says_nothing(self, what):
        with pytest.raises(IntegrityError, match="guestrequest_says_what"):
            GuestRequest.objects.create(email=ADDRESS, **what)

    def test_refuses_to_keep_the_text_of_a_confirmed_one(self):
        confirmed(asked())

        with pytest.raises(IntegrityError, match="guestrequest_forgets_once_confirmed"):
            GuestRequest.objects.update(title="Why does it hum?")

    def test_refuses_a_guest_with_a_password(self):
        with pytest.raises(IntegrityError, match="user_guest_has_no_password"):
            User.objects.filter(pk=UserFactory().pk).update(is_guest=True)

    def test_takes_a_guest_who_sets_one_as_no_guest_any_more(self):
        guest = confirmed(asked()).person
        guest.set_password("correct horse battery")
        guest.save()

        assert not User.objects.get().is_guest


def test_nobody_administers_what_is_not_confirmed(admin):
    from django.contrib import admin as site  # noqa: PLC0415 - the fixture has its name

    assert GuestRequest not in site.site._registry
    assert not any("guestrequest" in name for name in admin.get_all_permissions())
