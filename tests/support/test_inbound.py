"""Real messages as programs write them, with TOKEN where the address of a reply has its own."""

import io
import logging
import random
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from support import answering, inbound, mailing, merging, notifications
from support.models import Answer, InboundMail, Question, Subscription
from support.tasks import fetch_mail, tidy
from tests.factories import QuestionFactory, SubscriptionFactory, UserFactory
from tests.support.test_merging_races import raced

pytestmark = pytest.mark.django_db

MAILS = Path(__file__).parent / "mails"
SAID = {
    "gmail": "Thanks, *turning it* helped. The code I used:\n\n    lamp.turn(left=True)\n\n"
    "- first the bulb\n- then the ring",
    "gmail_german": "Danke, das war es. Für später: größer als 60 W geht nicht.",
    "gmail_html_only": "It works with [this lamp](https://example.org/lamp):\n\n- left\n- right",
    "outlook": "Turning it works.\n\nBut only when it is cold?",
    "outlook_german_html_only": "Das hilft – aber nur für „große“ Lampen.",
    "outlook_german_old": "Ja, das geht. Schöne Grüße an alle!",
    "outlook_web": "It is a bayonet, not a screw.",
    "apple_mail": "Left it is. Thank you!",
    "iphone_german": "Nach links, dann hält sie.",
    "thunderbird_bottom": "I turned it as far as it would go, and then a little further, which is "
    "why I now need a new lamp.\n\nWhich one is right?",
    "thunderbird_german_inline": "Das habe ich getan.\n\nWie lange?",
    "k9": "It was the fuse.",
    "mutt": "Mine says:\n\n\t$ lamp --turn left\n\terror: stuck",
    "attachment": "See the picture.",
    "calendar": "Let us look at it on Monday.",
    "yahoo": "A new socket helped.",
    "odd_charset": "Café lamps too.",
}
NOT_TAKEN = {
    "absence_outlook": "automatic",
    "absence_gmail": "automatic",
    "bounce": "automatic",
    "quote_only": "empty",
}


@pytest.fixture(autouse=True)
def open_door(settings):
    settings.INBOUND_DOMAIN = "in.example.com"


@pytest.fixture
def ada(db):
    return UserFactory(username="ada", email="Ada@example.com")


@pytest.fixture
def question(ada):
    return QuestionFactory()


def read(name, person, about):
    token = mailing.token(mailing.REPLY, person.pk, about.pk)
    return (MAILS / f"{name}.eml").read_bytes().replace(b"TOKEN", token.encode())


def simple(person, about, *, body="Turn it.", more="", sender=None, number=1, to=""):
    to = to or mailing.reply_address(person.pk, about.pk)
    head = f"From: {sender or person.email}\nTo: {to}\nMessage-ID: <m{number}@example.com>\n{more}"
    return f"{head}\n{body}\n".encode()


def take(raw):
    return inbound.receive(raw, now=timezone.now())


def kept():
    return list(InboundMail.objects.order_by("pk").values_list("outcome", flat=True))


def test_every_message_is_expected_to_become_something():
    assert {file.stem for file in MAILS.glob("*.eml")} == SAID.keys() | NOT_TAKEN.keys()


@pytest.mark.parametrize("name", SAID)
def test_a_reply_becomes_an_answer_with_its_writers_words_alone(name, ada, question):
    received = take(read(name, ada, question))

    assert received.outcome == "posted"
    assert received.answer.body == SAID[name]
    assert (received.answer.written_by, received.answer.question) == (ada, question)
    assert Subscription.objects.filter(subscriber=ada, question=question).exists()
    assert InboundMail.objects.get().answer == received.answer


@pytest.mark.parametrize("name", SAID)
def test_it_does_not_matter_how_lines_end_on_their_way(name, ada, question):
    raw = read(name, ada, question).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    assert take(raw).answer.body == SAID[name]


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_a_machine_wrote_and_what_says_nothing_becomes_none(name, ada, question):
    assert take(read(name, ada, question)).outcome == NOT_TAKEN[name]
    assert not Answer.objects.exists()
    assert mail.outbox == []


@pytest.mark.parametrize(
    "field",
    [
        "Auto-Submitted: auto-replied", "Precedence: bulk", "Precedence: auto_reply",
        "Return-Path: <>", "X-Autoreply: yes", "List-Id: <l.example.com>",
        "Message-ID: <news-7@localhost>", "From: Bounces+7@example.com",
        "Content-Type: multipart/report; boundary=x",
    ],
)  # fmt: skip
def test_a_machine_shows_in_its_head(field, ada, question, settings):
    settings.SITE_URL = "http://localhost:8000"

    assert take(simple(ada, question, more=f"{field}\n")).outcome == "automatic"


@pytest.mark.parametrize(
    "field",
    ["Auto-Submitted: no", "X-Auto-Response-Suppress: All", "Message-ID: <20261127@localhost>"],
)
def test_a_person_whose_program_says_so_much_is_none(field, ada, question, settings):
    settings.SITE_URL = "http://localhost:8000"
    assert take(simple(ada, question, more=f"{field}\n")).outcome == "posted"


def test_a_mail_taken_twice_is_posted_once(ada, question):
    first, second = take(simple(ada, question)), take(simple(ada, question))

    assert (first.outcome, second.outcome) == ("posted", "repeated")
    assert Answer.objects.count() == 1


def test_a_mail_without_an_id_is_known_by_all_of_it(ada, question):
    raw = simple(ada, question).replace(b"Message-ID", b"X-Other")

    assert [take(raw).outcome, take(raw).outcome, take(raw + b"!").outcome] == [
        "posted", "repeated", "posted"
    ]  # fmt: skip


def test_nobody_can_take_the_id_of_anothers_mail_before_it_comes(ada, question):
    mallory = UserFactory()
    take(simple(mallory, question, body="First!"))
    take(simple(ada, question, sender="nobody@example.com"))

    assert take(simple(ada, question)).outcome == "posted"


@pytest.mark.django_db(transaction=True)
def test_of_two_that_bring_a_mail_at_the_same_moment_one_posts_it(ada, question):
    for number in range(10):
        raw = simple(ada, question, number=number)

        results = raced(*[lambda raw=raw: take(raw)] * 4)

        assert sorted(result.outcome for result in results) == ["posted", *["repeated"] * 3]
    assert Answer.objects.count() == InboundMail.objects.count() == 10


@pytest.mark.django_db(transaction=True)
def test_a_mail_whose_answer_is_not_stored_is_not_noted_either(ada, question, monkeypatch):
    def fail(**_):
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr(answering, "post_answer", fail)
        with pytest.raises(OperationalError):
            take(simple(ada, question))
    assert not InboundMail.objects.exists()

    assert take(simple(ada, question)).outcome == "posted"


@pytest.mark.parametrize(
    "sender",
    [
        "mallory@example.com", "", "ada@example.com, mallory@example.com",
        '"ada@example.com" <mallory@example.com>', "ada@example.com\nFrom: mallory@example.com",
    ],
)  # fmt: skip
def test_only_from_ones_own_address(sender, ada, question):
    raw = simple(ada, question).replace(b"From: Ada@example.com", b"From: " + sender.encode())

    assert take(raw).outcome == "refused"
    assert not Answer.objects.exists()


def test_the_address_decides_whatever_its_case_and_wherever_it_stands(ada, question):
    address = mailing.reply_address(ada.pk, question.pk)
    for number, field in enumerate(("Delivered-To", "X-Original-To", "Envelope-To", "Cc", "To")):
        raw = simple(ada, question, number=number, to="x@example.com",
                     more=f"{field}: <{address.upper()}>\n", sender="ADA@EXAMPLE.COM")  # fmt: skip
        assert take(raw).outcome == "posted", field


def test_an_address_is_worth_nothing_for_others_for_another_question_or_elsewhere(ada, question):
    mallory, other = UserFactory(), QuestionFactory()
    given = mailing.reply_address(ada.pk, question.pk)
    forged = [
        mailing.reply_address(mallory.pk, question.pk),
        given.replace("in.example.com", "in.example.org"),
        given.replace("@", "0@"),
        re.sub(r"-(\w+)@", lambda m: "-" + m[1][::-1] + "@", given),
        re.sub(
            r"\+(\w+)-(\w+)-",
            lambda m: f"+{m[1]}-{mailing.int_to_base36(other.pk)}-",
            given,
        ),
        f"reply+{mailing.token(mailing.STOP, ada.pk, question.pk)}@in.example.com",
        "reply+@in.example.com",
        "support@in.example.com",
    ]

    for number, address in enumerate(forged):
        assert take(simple(ada, question, to=address, number=number)).outcome == "refused", address


def test_without_a_domain_nothing_is_taken(ada, question, settings):
    raw = simple(ada, question)
    settings.INBOUND_DOMAIN = ""

    assert take(raw).outcome == "refused"
    assert mailing.reply_address(ada.pk, question.pk) == ""


def test_who_may_no_longer_read_it_is_refused_as_if_it_were_not_there(ada, question):
    Question.objects.filter(pk=question.pk).update(audience="private")
    missing = QuestionFactory.build(pk=10**9)

    assert [take(simple(ada, about, number=n)).outcome
            for n, about in enumerate((question, missing))] == ["refused", "refused"]  # fmt: skip
    assert not Answer.objects.exists()


def test_who_left_is_refused(ada, question):
    raw = simple(ada, question)
    ada.is_active = False
    ada.save()

    assert take(raw).outcome == "refused"


def test_a_reply_about_a_duplicate_lands_where_its_answers_go(ada, question, admin):
    canonical = QuestionFactory()
    edge = merging.merge(duplicate=question, canonical=canonical, by=admin)

    while_merged = take(simple(ada, question, number=1))
    merging.unmerge(merge=edge, by=admin)
    afterwards = take(simple(ada, question, number=2))

    assert while_merged.answer.question == canonical
    assert afterwards.answer.question == question


def test_followers_hear_of_an_answer_by_mail_but_its_writer_gets_nothing_back(ada, question):
    follower = SubscriptionFactory(question=question).subscriber
    take(simple(ada, question))

    notifications.send_due(now=timezone.now())

    assert [message.to for message in mail.outbox] == [[follower.email]]


def test_one_person_cannot_flood(ada, question, monkeypatch):
    monkeypatch.setattr(inbound, "MAILS_OF_A_PERSON", inbound.quota.Quota("inbound_mail", 2, 3600))

    outcomes = [take(simple(ada, question, number=number)).outcome for number in range(3)]

    assert outcomes == ["posted", "posted", "too_many"]


def test_neither_the_log_nor_the_row_has_a_word_of_it(ada, question, caplog):
    caplog.set_level(logging.DEBUG)
    take(simple(ada, question, body="quokka", more="Subject: wombat\n"))
    take(simple(ada, question, body="quokka", sender="numbat@example.com", number=2))
    take(b"quokka" * 20_000)

    rows = str(list(InboundMail.objects.values()))
    assert "A mail came in: posted" in caplog.text
    for word in ("quokka", "wombat", "numbat", "m1@"):
        assert word not in caplog.text + rows


NESTED = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n)
                  for n in range(2_000))  # fmt: skip
PARTS = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 200_000
ODD = {
    "nothing": b"",
    "zeros": b"\0" * 5_000,
    "every byte": bytes(range(256)) * 400,
    "nested": NESTED,
    "parts": PARTS,
    "a head alone": b"A: b\n" * 40_000,
    "a long field": b"To: " + b"a@b.example, " * 60_000 + b"\n\nx",
    "huge": b"From: a@b.example\n\n" + b"x" * (inbound.LARGEST_MAIL + 1),
    "brackets": b"From: " + b"(" * 30_000 + b"\n\nx",
    "quotes": b'From: "' + b'\\"' * 10_000 + b"\n\nx",
    "words": b"From: =?utf-8?q?" + b"=?=?" * 5_000 + b"\n\nx",
    "no boundary": b"Content-Type: multipart/mixed\n\n--\nx",
    "odd kind": b"Content-Type: ;;;=\"\nContent-Disposition: ;\n\nx",
    "odd encoding": b"Content-Transfer-Encoding: base64\n\n!!!!=====",
    "odd date": b"Date: \xff\xfe\nMessage-ID: \xff\n\nx",
    "rfc822": b"Content-Type: message/rfc822\n\nContent-Type: message/rfc822\n\n\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_no_mail_makes_it_fail_or_takes_long(name):
    begun = time.process_time()

    outcome = take(ODD[name]).outcome

    assert outcome in {"unreadable", "refused"}
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain; charset=utf-8", b"a\0b \xed\xa0\x80 c"),
        ("text/plain; charset=utf-16", b"\xff"),
        ("text/plain; charset=utf-7", b"+AGE"),
        ("text/plain; charset=idna", b"xn--a"),
        ("text/plain; charset=rot13", b"Turn it"),
        ("text/plain; charset=hex", b"zz"),
        ("text/plain; charset=unicode_escape", rb"\ud800 x"),
        ("text/plain; format=flowed; delsp=yes", b"a \nb \n> c \n>> d\n-- \nme"),
        ("text/html", b"<div>" * 9_000 + b"deep"),
        ("text/html", b"<![a <b>odd</b>"),
        ("text/html; charset=gb2312", b"<p>\xc4\xe3</p>"),
    ],
)
def test_an_odd_text_is_taken_as_well_as_it_can_be_read(kind, body, ada, question):
    received = take(simple(ada, question, more=f"Content-Type: {kind}\n").rstrip(b"Turn it.\n")
                    + b"\n\n" + body)  # fmt: skip

    assert received.outcome in {"posted", "empty", "unreadable"}
    if received.answer:
        stored = Answer.objects.get().body
        assert stored
        assert "\0" not in stored


def test_a_text_that_is_too_long_is_cut_and_not_lost(ada, question):
    assert len(take(simple(ada, question, body="word " * 10_000)).answer.body) >= 19_999


def test_what_a_quote_that_was_not_known_as_one_holds_is_worth_nothing(ada, question):
    """Who reads such an address could write as its owner; who reads such a link, end their mail."""
    quoted = (
        f"Mine.\n\nUnknown words:\n\nTurn it.\n{mailing.stop_url(ada.pk, question.pk)}\n"
        f"<a href='{mailing.stop_url(ada.pk, 0)}'>stop</a> {mailing.reply_address(ada.pk, 7)}"
    )

    body = take(simple(ada, question, body=quoted)).answer.body

    assert body.startswith("Mine.")
    for about in (question.pk, 0, 7):
        for purpose in (mailing.REPLY, mailing.STOP):
            assert mailing.token(purpose, ada.pk, about) not in body


def test_damaged_messages_never_make_it_fail(ada, question):
    dice = random.Random(7)
    for name in [*SAID, *NOT_TAKEN]:
        raw = bytearray(read(name, ada, question))
        for _ in range(5):
            for _ in range(20):
                raw[dice.randrange(len(raw))] = dice.randrange(256)
            with transaction.atomic():
                take(bytes(raw))


def test_a_mail_is_noted_once_and_an_answer_only_where_it_was_posted(ada, question):
    take(simple(ada, question))
    row = InboundMail.objects.get()

    with pytest.raises(IntegrityError, match="inboundmail_once"), transaction.atomic():
        InboundMail.objects.create(message_hash=row.message_hash, outcome="refused")
    with pytest.raises(IntegrityError, match="inboundmail_answer_if_posted"), transaction.atomic():
        InboundMail.objects.update(answer=None)


def test_what_became_nothing_is_forgotten_after_a_month(ada, question):
    long_ago = timezone.now() - timedelta(days=31)
    inbound.receive(simple(ada, question), now=long_ago)
    inbound.receive(b"From: x@example.com\n\nx", now=long_ago)
    take(b"From: y@example.com\n\ny")

    tidy()

    assert kept() == ["posted", "refused"]


class Pipe:
    def __init__(self, raw):
        self.buffer = io.BytesIO(raw)


def test_a_mail_server_can_pipe_a_mail_in(ada, question, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Pipe(simple(ada, question)))

    call_command("receive_mail")

    assert Answer.objects.get().body == "Turn it."


def test_a_mail_server_is_told_to_try_again_while_the_database_is_away(ada, question, tmp_path):
    ran = subprocess.run(
        [sys.executable, "manage.py", "receive_mail"], input=simple(ada, question),
        cwd=Path(__file__).parents[2], capture_output=True, check=False,
        env={"PATH": "/usr/bin", "SECRET_KEY": "x" * 60, "ASKONCE_FOLDER": str(tmp_path),
             "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none"},
    )  # fmt: skip

    assert ran.returncode == 75, ran.stderr
    assert b"Turn it" not in ran.stderr + ran.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mailbox(socketserver.ThreadingTCPServer):
    """A mail server that speaks as much IMAP as a reader of one folder needs."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, mails):
        super().__init__(("127.0.0.1", 0), Session)
        self.mails, self.seen, self.said = dict(enumerate(mails, start=11)), set(), []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Session(socketserver.StreamRequestHandler):
    def send(self, *lines):
        self.wfile.write(b"".join(line + b"\r\n" for line in lines))

    def handle(self):
        self.send(b"* OK [CAPABILITY IMAP4rev1] ready")
        for line in self.rfile:
            tag, _, command = line.strip().partition(b" ")
            self.server.said.append(command.decode())
            name = command.split()[0].upper()
            if name == b"UID":
                name = command.split()[1].upper()
            done = getattr(self, name.decode().lower(), lambda _: b"OK")(command)
            self.send(tag + b" " + (done or b"OK") + b" done")
            if name == b"LOGOUT":
                return

    def capability(self, _):
        self.send(b"* CAPABILITY IMAP4rev1")

    def login(self, command):
        return b"OK" if command == b'LOGIN me@example.com "a/secret"' else b"NO"

    def select(self, command):
        if command != b'SELECT "Re plies"':
            return b"NO"
        self.send(b"* %d EXISTS" % len(self.server.mails), b"* OK [UIDVALIDITY 1] ok")
        return b"OK [READ-WRITE]"

    def search(self, _):
        unseen = sorted(self.server.mails.keys() - self.server.seen)
        self.send(b"* SEARCH " + b" ".join(b"%d" % uid for uid in unseen))

    def fetch(self, command):
        uid = int(command.split()[2])
        raw = self.server.mails[uid]
        self.send(b"* 1 FETCH (UID %d BODY[]<0> {%d}" % (uid, len(raw)))
        self.wfile.write(raw)
        self.send(b")")

    def store(self, command):
        assert command.endswith(rb"+FLAGS (\Seen)")
        self.server.seen.add(int(command.split()[2]))

    def logout(self, _):
        self.send(b"* BYE")


@pytest.fixture
def mailbox(settings, ada, question):
    servers = []

    def serve(*mails):
        server = Mailbox(mails)
        port = server.server_address[1]
        settings.INBOUND_URL = f"imap://me%40example.com:a%2Fsecret@127.0.0.1:{port}/Re%20plies"
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_mailbox_is_read_and_what_was_taken_is_marked(mailbox, ada, question, capsys):
    server = mailbox(read("gmail", ada, question), read("bounce", ada, question),
                     read("outlook", ada, question))  # fmt: skip

    call_command("fetch_mail")

    assert "3 mails taken." in capsys.readouterr().out
    assert kept() == ["posted", "automatic", "posted"]
    assert server.seen == {11, 12, 13}
    assert server.said[-1] == "LOGOUT"
    assert inbound.fetch(now=timezone.now()) == 0


def test_what_the_database_did_not_take_stays_unread(mailbox, ada, question, monkeypatch):
    server = mailbox(read("gmail", ada, question), read("outlook", ada, question))
    monkeypatch.setattr(
        inbound, "receive", lambda *_, **__: (_ for _ in ()).throw(OperationalError)
    )

    with pytest.raises(OperationalError):
        fetch_mail()

    assert server.seen == set()


def test_a_mail_that_was_committed_but_not_marked_is_not_posted_again(mailbox, ada, question):
    server = mailbox(read("gmail", ada, question))
    inbound.fetch(now=timezone.now())
    server.seen.clear()  # as when the connection ended before the mark

    assert inbound.fetch(now=timezone.now()) == 1

    assert Answer.objects.count() == 1
    assert server.seen == {11}


def test_a_full_mailbox_is_read_a_part_at_a_time(mailbox, ada, question, monkeypatch):
    mailbox(*(simple(ada, question, number=number) for number in range(3)))
    monkeypatch.setattr(inbound, "MOST_AT_ONCE", 2)

    assert [inbound.fetch(now=timezone.now()) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("part", ["secret", "plies", "127.0.0.1"])
def test_a_mailbox_that_lets_nobody_in_is_told_without_its_password(
    mailbox, settings, part, caplog
):
    mailbox()
    place = {"secret": "secrex", "plies": "pliex", "127.0.0.1": "127.0.0.2"}[part]
    settings.INBOUND_URL = settings.INBOUND_URL.replace(part, place)

    with pytest.raises(CommandError, match="cannot be reached") as caught:
        call_command("fetch_mail")
    fetch_mail()

    assert "secre" not in str(caught.value) + caplog.text
    assert "The mailbox cannot be reached" in caplog.text


def test_without_a_mailbox_the_task_does_nothing_and_the_command_says_so(settings):
    settings.INBOUND_URL = ""

    fetch_mail()
    with pytest.raises(CommandError, match="Set INBOUND_URL"):
        call_command("fetch_mail")
    assert not InboundMail.objects.exists()
