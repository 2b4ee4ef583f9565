"""How a mail looks, how programs put it into a thread, and what ends it."""

import smtplib
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from support import answering, mailing, merging, notifications
from support.models import MailStop, Notification, Question, Subscription, User
from tests.factories import AnswerFactory, QuestionFactory, SubscriptionFactory, UserFactory

pytestmark = pytest.mark.django_db

UNDO = timedelta(seconds=notifications.UNDO_SECONDS)


@pytest.fixture(autouse=True)
def site(settings):
    settings.SITE_URL = "https://support.example.com"
    settings.INBOUND_DOMAIN = "in.example.com"


@pytest.fixture
def reader():
    return UserFactory(username="reader")


def follows(person, question):
    return SubscriptionFactory(question=question, subscriber=person).question


def sent(now=None):
    mail.outbox.clear()
    notifications.send_due(now=now or timezone.now())
    return list(mail.outbox)


def answered(question, body="Turn it."):
    answering.post_answer(question=question, body=body, by=UserFactory())
    return sent()


def to(person, messages):
    return [message for message in messages if message.to == [person.email]]


def root(question):
    return f"<question-{question.pk}@support.example.com>"


def head(message):
    return message.message()


def test_a_mail_says_to_machines_what_it_is(reader):
    question = follows(reader, QuestionFactory())

    (message,) = answered(question)

    fields = head(message)
    news = Notification.objects.get()
    assert fields["Message-ID"] == f"<news-{news.pk}@support.example.com>"
    assert fields["In-Reply-To"] == fields["References"] == root(question)
    assert fields["Auto-Submitted"] == "auto-generated"
    assert fields["List-Id"] == "<questions.support.example.com>"
    assert fields["Precedence"] == "list"
    assert fields["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert fields["List-Unsubscribe"] == f"<{mailing.stop_url(reader.pk, question.pk)}>"
    assert fields["Reply-To"] == mailing.reply_address(reader.pk, question.pk)


def test_the_id_of_a_mail_is_the_same_whenever_it_is_asked_for(reader):
    question = follows(reader, QuestionFactory())
    (message,) = answered(question)

    assert mailing.message_id(list(Notification.objects.all())) == head(message)["Message-ID"]


def test_without_a_mailbox_nobody_is_told_to_reply(reader, settings):
    settings.INBOUND_DOMAIN = ""

    (message,) = answered(follows(reader, QuestionFactory()))

    assert message.reply_to == []
    assert "reply to this mail" not in message.body


def test_an_address_for_replies_is_short_enough_and_survives_small_letters(reader):
    address = mailing.reply_address(2**63 - 1, 2**63 - 1)

    assert len(address.partition("@")[0]) <= 64
    token = address.partition("@")[0].removeprefix("reply+")
    assert mailing.read_token(mailing.REPLY, token.upper()) == (2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize("given", ["", "-", "1-2", "1-2-", "é", "1-2-" + "0" * 25, "x" * 3_000])
def test_what_is_no_token_names_nobody(given):
    assert mailing.read_token(mailing.REPLY, given) is None


def threads_of(messages):
    """Groups of mails that a program would show as one thread: joined by any id that they share."""
    groups = []
    for message in messages:
        fields = head(message)
        ids = {fields["Message-ID"], *fields["References"].split()}
        near = [group for group in groups if group & ids]
        groups = [group for group in groups if group not in near] + [ids.union(*near)]
    return groups


def test_mails_about_one_thread_stay_together_before_during_and_after_a_merge(reader, admin):
    older, newer = QuestionFactory(), follows(reader, QuestionFactory())
    top = QuestionFactory()
    messages = to(reader, answered(newer))
    edge = merging.merge(duplicate=newer, canonical=older, by=admin)
    messages += to(reader, sent(timezone.now() + UNDO))
    messages += to(reader, answered(older))
    higher = merging.merge(duplicate=older, canonical=top, by=admin)
    messages += to(reader, answered(top))
    merging.unmerge(merge=higher, by=admin)
    merging.unmerge(merge=edge, by=admin)
    messages += to(reader, answered(newer))

    assert len(messages) == 5
    assert len(threads_of(messages)) == 1
    assert all(root(newer) in head(message)["References"] for message in messages)
    assert root(older) in head(messages[1])["References"]
    assert root(older) in head(messages[2])["References"]
    assert {message.subject for message in (messages[0], *messages[2:])} == {
        f"New answer: {newer.title}"
    }


def test_mails_about_different_questions_are_different_threads(reader):
    messages = answered(follows(reader, QuestionFactory()))
    messages += answered(follows(reader, QuestionFactory()))

    assert len(threads_of(messages)) == 2


def test_no_field_names_a_question_that_its_reader_may_not_see(reader, admin):
    older, newer = QuestionFactory(), follows(reader, QuestionFactory())
    merging.merge(duplicate=newer, canonical=older, by=admin)
    sent(timezone.now() + UNDO)
    Notification.objects.all().delete()
    answering.post_answer(question=newer, body="Turn it.", by=UserFactory())
    Notification.objects.update(question=newer)
    Question.objects.filter(pk=older.pk).update(audience="private")  # old rows may be so

    (message,) = to(reader, sent())

    assert root(older) not in head(message).as_string()


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.leads = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.leads += [(name, value) for name, value in attrs if name in {"href", "src", "style"}]


def test_the_html_part_has_the_same_words_and_loads_nothing(reader):
    question = follows(reader, QuestionFactory(title="<b>Dim & dark"))
    body = "Turn **it**. ![x](https://evil.example/a.png) <img src=https://evil.example/b.png>"

    (message,) = answered(question, body)

    ((html, kind),) = message.alternatives
    read = Links(html)
    assert kind == "text/html"
    assert "&lt;b&gt;Dim &amp; dark" in html
    assert "Turn <strong>it</strong>." in html
    assert not {"img", "script", "link", "iframe"} & set(read.tags)
    assert {name for name, _ in read.leads} == {"href"}  # what one may open, never what loads
    assert "url(" not in html
    assert "Turn **it**." in message.body


def test_a_mail_is_written_in_its_readers_language(reader):
    reader.language = "ar"
    reader.save()
    with translation.override("en"):
        (message,) = answered(follows(reader, QuestionFactory()))
        assert translation.get_language() == "en"

    assert '<html lang="ar" dir="rtl">' in message.alternatives[0][0]


class TestStopping:
    def press(self, person, question, **given):
        token = mailing.token(mailing.STOP, person.pk, question.pk if question else mailing.ALL)
        client = Client(enforce_csrf_checks=True)
        return client.post(reverse("unsubscribe", args=[token]), given)

    def one_click(self, person, question):
        return self.press(person, question, **{"List-Unsubscribe": "One-Click"})

    def test_the_address_in_the_head_works_without_cookie_login_or_form(self, reader):
        question = follows(reader, QuestionFactory())
        (message,) = answered(question)
        url = head(message)["List-Unsubscribe"].strip("<>")
        path = url.removeprefix("https://support.example.com")

        answer = Client(enforce_csrf_checks=True).post(path, {"List-Unsubscribe": "One-Click"})

        assert answer.status_code == 200
        assert answer.cookies == {}
        assert to(reader, answered(question)) == []

    def test_looking_changes_nothing(self, reader, client):
        question = follows(reader, QuestionFactory())
        path = reverse("unsubscribe", args=[mailing.token(mailing.STOP, reader.pk, question.pk)])

        assert question.title in client.get(path).content.decode()

        assert len(answered(question)) == 1

    def test_what_waits_already_is_not_sent(self, reader):
        question = follows(reader, QuestionFactory())
        answering.post_answer(question=question, body="Turn it.", by=UserFactory())

        self.one_click(reader, question)

        assert sent() == []
        assert Notification.objects.get().status == "cancelled"

    def test_nothing_more_comes_about_it_whatever_happens_to_it(self, reader, admin):
        """Its asker would hear of merges, and a writer of an acceptance, without following it."""
        mine = QuestionFactory(asked_by=reader)
        other = QuestionFactory()
        answer = AnswerFactory(question=other, written_by=reader)
        for question in (mine, other):
            self.one_click(reader, question)

        edge = merging.merge(duplicate=mine, canonical=QuestionFactory(), by=admin)
        merging.unmerge(merge=edge, by=admin)
        merging.merge(duplicate=QuestionFactory(), canonical=mine, by=admin)
        answering.accept_answer(question=other, answer=answer, by=other.asked_by)
        answering.post_answer(question=mine, body="Turn it.", by=UserFactory())

        assert to(reader, sent(timezone.now() + UNDO)) == []

    def test_a_thread_is_stopped_with_all_that_was_merged_into_it(self, reader, admin):
        older, newer = follows(reader, QuestionFactory()), follows(reader, QuestionFactory())
        edge = merging.merge(duplicate=newer, canonical=older, by=admin)
        sent(timezone.now() + UNDO)

        self.one_click(reader, newer)

        assert to(reader, answered(older)) == []
        merging.unmerge(merge=edge, by=admin)
        assert to(reader, answered(newer)) == []

    def test_other_questions_and_other_people_go_on(self, reader):
        question = follows(reader, QuestionFactory())
        other, friend = follows(reader, QuestionFactory()), UserFactory()
        follows(friend, question)

        self.one_click(reader, question)

        assert len(to(reader, answered(other))) == 1
        assert len(to(friend, answered(question))) == 1

    def test_who_follows_it_again_or_answers_hears_again(self, reader):
        one, two = follows(reader, QuestionFactory()), follows(reader, QuestionFactory())
        for question in (one, two):
            self.one_click(reader, question)

        answering.set_following(question=one, by=reader, wanted=True)
        answering.post_answer(question=two, body="I know.", by=reader)

        assert len(to(reader, answered(one))) == 1
        assert len(to(reader, answered(two))) == 1

    def test_all_mail_ends_by_the_other_button_and_by_the_address_of_a_digest(self, reader):
        question, friend = follows(reader, QuestionFactory()), UserFactory()
        assert "no more mail" in self.press(reader, question, what="all").content.decode()
        self.one_click(friend, None)

        assert set(User.objects.filter(pk__in=[reader.pk, friend.pk]).values_list(
            "mail_pace", flat=True)) == {"none"}  # fmt: skip
        assert answered(question) == []

    def test_it_can_be_pressed_twice(self, reader):
        question = follows(reader, QuestionFactory())

        answers = [self.one_click(reader, question) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert MailStop.objects.count() == 1

    def test_an_address_for_replies_stops_nothing(self, reader, client):
        question = follows(reader, QuestionFactory())
        token = mailing.token(mailing.REPLY, reader.pk, question.pk)

        assert client.post(reverse("unsubscribe", args=[token])).status_code == 404
        assert Subscription.objects.filter(subscriber=reader).exists()

    def test_what_is_or_became_private_is_stopped_too_but_not_named(self, reader, client):
        mine = follows(reader, QuestionFactory(asked_by=reader, audience="private", title="quokka"))
        lost = follows(reader, QuestionFactory(title="quokka"))
        Question.objects.filter(pk=lost.pk).update(audience="private")

        for question in (mine, lost):
            token = mailing.token(mailing.STOP, reader.pk, question.pk)
            page = client.get(reverse("unsubscribe", args=[token])).content.decode()
            assert "quokka" not in page + self.one_click(reader, question).content.decode()

        assert not Subscription.objects.filter(subscriber=reader).exists()


class TestDigest:
    EIGHT = datetime(2026, 11, 27, 8, tzinfo=UTC)

    @pytest.fixture
    def slow(self, settings):
        settings.MAIL_DIGEST_HOUR = 7
        return UserFactory(username="slow", mail_pace="daily")

    def put(self, question, at, body="Turn it."):
        return answering.post_answer(question=question, body=body, by=UserFactory(), now=at)

    def test_all_that_is_new_comes_in_one_mail_once_a_day(self, slow):
        one, two = follows(slow, QuestionFactory()), follows(slow, QuestionFactory())
        self.put(one, self.EIGHT, "Turn it left.")
        self.put(two, self.EIGHT + timedelta(hours=3), "Turn it right.")

        assert sent(self.EIGHT + timedelta(hours=22, minutes=59)) == []
        (message,) = sent(self.EIGHT + timedelta(hours=23))

        assert message.subject == "AskOnce: 2 pieces of news"
        for word in (one.title, two.title, "Turn it left.", "Turn it right."):
            assert word in message.body
        assert sent(self.EIGHT + timedelta(days=3)) == []
        assert set(Notification.objects.values_list("status", flat=True)) == {"sent"}

    def test_what_came_after_the_hour_waits_for_the_next_day(self, slow):
        question = follows(slow, QuestionFactory())
        self.put(question, self.EIGHT)
        self.put(question, self.EIGHT + timedelta(hours=23, seconds=5))

        def came(**later):
            return len(to(slow, sent(self.EIGHT + timedelta(**later))))

        assert came(hours=23, seconds=9) == 1
        assert came(hours=46) == 0
        assert came(hours=47) == 1

    def test_a_mail_about_many_questions_ends_all_and_takes_no_replies(self, slow):
        for _ in range(2):
            self.put(follows(slow, QuestionFactory()), self.EIGHT)

        (message,) = sent(self.EIGHT + timedelta(days=1))

        fields = head(message)
        assert mailing.stop_url(slow.pk, mailing.ALL) in fields["List-Unsubscribe"]
        for question in Question.objects.all():
            assert mailing.stop_url(slow.pk, question.pk) in message.body
            assert mailing.stop_url(slow.pk, question.pk) in message.alternatives[0][0]
        assert fields["Reply-To"] is None
        assert fields["References"] is None
        assert fields["Message-ID"].startswith("<digest-")

    def test_a_mail_about_one_question_is_as_any_other_about_it(self, slow):
        question = follows(slow, QuestionFactory())
        for _ in range(2):
            self.put(question, self.EIGHT)

        (message,) = to(slow, sent(self.EIGHT + timedelta(days=1)))

        assert head(message)["References"] == root(question)
        assert head(message)["Reply-To"] == mailing.reply_address(slow.pk, question.pk)

    def test_what_was_undone_hidden_or_stopped_meanwhile_is_not_in_it(self, slow, admin):
        mine = QuestionFactory(asked_by=slow, title="numbat")
        edge = merging.merge(duplicate=mine, canonical=QuestionFactory(title="bilby"), by=admin,
                             now=self.EIGHT)  # fmt: skip
        hidden = follows(slow, QuestionFactory(title="quokka"))
        stopped = follows(slow, QuestionFactory(title="wombat"))
        kept = follows(slow, QuestionFactory(title="Still here"))
        for question in (hidden, stopped, kept):
            self.put(question, self.EIGHT, f"About {question.title}.")
        merging.unmerge(merge=edge, by=admin)
        Question.objects.filter(pk=hidden.pk).update(audience="private")
        notifications.stop(question=stopped, by=slow, now=self.EIGHT)

        (message,) = sent(self.EIGHT + timedelta(days=1))

        assert "Still here" in message.body
        whole = message.message().as_string()
        assert [word for word in ("numbat", "bilby", "quokka", "wombat") if word in whole] == []
        assert sorted(Notification.objects.filter(recipient=slow).values_list(
            "status", flat=True)) == ["cancelled", "cancelled", "cancelled", "sent"]  # fmt: skip

    def test_nothing_is_sent_where_nothing_is_left(self, slow):
        question = follows(slow, QuestionFactory())
        self.put(question, self.EIGHT)
        Question.objects.update(audience="private")

        assert sent(self.EIGHT + timedelta(days=1)) == []

    def test_who_chooses_another_pace_gets_what_waits_at_that_pace(self, slow):
        question = follows(slow, QuestionFactory())
        self.put(question, self.EIGHT)
        User.objects.filter(pk=slow.pk).update(mail_pace="at_once")

        assert len(sent(self.EIGHT + timedelta(seconds=1))) == 1

    @pytest.mark.parametrize(
        ("now", "moment"),
        [(6, datetime(2026, 11, 26, 7, tzinfo=UTC)), (7, datetime(2026, 11, 27, 7, tzinfo=UTC))],
    )
    def test_the_hour_of_the_day_is_the_last_that_struck(self, settings, now, moment):
        settings.MAIL_DIGEST_HOUR = 7

        assert mailing.digest_moment(datetime(2026, 11, 27, now, tzinfo=UTC)) == moment


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (smtplib.SMTPRecipientsRefused({"a": (550, b"no")}), mailing.Refused),
        (smtplib.SMTPRecipientsRefused({"a": (451, b"later")}), mailing.PutOff),
        (smtplib.SMTPDataError(554, b"no"), mailing.Refused),
        (smtplib.SMTPDataError(421, b"later"), mailing.PutOff),
        (smtplib.SMTPSenderRefused(550, b"no", "us"), mailing.PutOff),
        (ValueError("an address"), mailing.Refused),
        (smtplib.SMTPServerDisconnected(), smtplib.SMTPServerDisconnected),
        (TimeoutError(), TimeoutError),
    ],
)
def test_what_a_server_says_tells_whether_it_took_a_mail(error, raised):
    class Message:
        def send(self):
            raise error

    with pytest.raises(raised):
        mailing.hand_over(Message())
