import http.server
import smtplib
import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.core.checks import run_checks
from django.db import IntegrityError, transaction
from django.utils import timezone
from standardwebhooks import Webhook

from dedup import alerts, review, tasks, timing, watching, webhooks
from dedup.models import Alert, Delivery, Release
from support import outbox
from support.models import AuditEntry, OutboxEntry
from tests.factories import FlagFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def told(settings):
    settings.ALERT_MAIL = ["ops@example.com"]


def opened(rule=Alert.Rule.QUARANTINED, **fields):
    given = {"value": 3, "worst": 3, "bound": 0} | fields
    return Alert.objects.create(rule=rule, **given)


def delivery(channel="webhook", **fields):
    return Delivery.objects.create(alert=opened(), is_over=False, channel=channel, **fields)


def quarantine(now):
    question = QuestionFactory()
    outbox.put(question)
    OutboxEntry.objects.filter(question=question).update(quarantined_at=now)
    return question


class TestRules:
    def test_a_question_in_quarantine_opens_one_alert_and_its_end_closes_it(self, told, now):
        question = quarantine(now)
        alerts.look(now=now)
        alerts.look(now=now + MINUTE)
        alert = Alert.objects.get()
        assert (alert.rule, alert.value, alert.closed_at) == ("quarantined", 1, None)

        outbox.drop([question.pk], now=now)
        alerts.look(now=now + 2 * MINUTE)
        alert.refresh_from_db()
        assert alert.closed_at == now + 2 * MINUTE
        assert list(Delivery.objects.order_by("pk").values_list("is_over", flat=True)) == [
            False,
            True,
        ]

    def test_a_value_that_swings_about_its_bound_sends_no_second_message(
        self, told, now, settings, monkeypatch
    ):
        seen = []
        for number, seconds in enumerate([601, 550, 620, 700, 490, 470, 601]):
            monkeypatch.setattr(outbox, "seconds_behind", lambda now, given=seconds: given)
            changed = alerts.look(now=now + number * MINUTE)
            seen.append([one.closed_at is None for one in changed])

        assert seen == [[True], [], [], [], [], [False], [True]]
        assert Alert.objects.order_by("pk").first().worst == 700
        assert Delivery.objects.count() == 3

    def test_a_worker_that_is_seen_no_more_is_missed_and_one_that_never_was_is_not(self, now):
        assert alerts.no_worker(now) == []
        watching.note_alive("celery@here", ["checks"], now=now - 10 * MINUTE)
        assert alerts.no_worker(now)[0].is_crossed
        watching.note_alive("celery@here", ["interactive"], now=now)
        assert alerts.no_worker(now) == []
        watching.note_alive("celery@there", ["checks", "interactive"], now=now)
        assert not alerts.no_worker(now)[0].is_crossed

    def test_slow_checks_are_told_of_once_there_are_enough(self, now):
        for _ in range(19):
            timing.note_now("waited", 100, now=now)
        assert alerts.slow_check(now) == []
        timing.note_now("waited", 100, now=now)
        assert alerts.slow_check(now)[0].is_crossed

    def test_suggestions_by_words_alone_are_told_of(self, now):
        for name in ["suggest_words"] * 11 + ["suggest_scores"] * 9:
            timing.note_now(name, 0.3, now=now)

        assert alerts.words_alone(now)[0].value == 0.55
        assert alerts.words_alone(now)[0].is_crossed

    def test_acceptance_that_falls_below_its_interval_is_told_of(self, now, agent):
        def decide(number, confirmed, days):
            for place in range(number):
                flag = FlagFactory()
                said = review.confirm if place < confirmed else review.dismiss
                extra = {"canonical": flag.older} if place < confirmed else {}
                made = said(flag=flag, by=agent, **extra)
                type(made).objects.filter(pk=made.pk).update(reviewed_at=now - timedelta(days=days))

        decide(30, 27, 20)
        decide(20, 8, 2)
        reading = alerts.acceptance(now)[0]

        assert reading.is_crossed
        assert (reading.value, reading.bound) == (40, 74)

    def test_another_worker_stands_in_only_where_nobody_has_looked_for_long(self, told, now):
        quarantine(now)
        timing.note_now("watch", 0, now=now - 11 * MINUTE)
        tasks.look_at_bounds(stands_in=True)
        assert not Alert.objects.exists()

        timing.StageTime.objects.update(last_at=now - 26 * MINUTE)
        tasks.look_at_bounds(stands_in=True)
        assert Alert.objects.count() == 1
        assert len(mail.outbox) == 1

    def test_drift_is_read_of_the_active_release_alone(self, now):
        assert Release.objects.count() == 0
        assert alerts.drifted(now) == []

    def test_the_database_keeps_one_open_alert_for_each_rule_and_subject(self, now):
        alert = opened()
        with pytest.raises(IntegrityError, match="alert_open_once"), transaction.atomic():
            opened()
        with pytest.raises(IntegrityError, match="alert_closed_after"), transaction.atomic():
            opened(subject="x", opened_at=now, closed_at=now - MINUTE)
        with pytest.raises(IntegrityError, match="delivery_sent_was_tried"), transaction.atomic():
            Delivery.objects.create(alert=alert, is_over=False, channel="mail", state="sent")
        Delivery.objects.create(alert=alert, is_over=False, channel="mail")
        with pytest.raises(IntegrityError, match="delivery_once"), transaction.atomic():
            Delivery.objects.create(alert=alert, is_over=False, channel="mail")
        opened(subject="probability language:de")

    def test_two_looks_at_once_open_one(self, told, now):
        quarantine(now)
        reading = alerts.rising(1, 0)
        alert = alerts._open("quarantined", reading, now)

        assert alert
        assert alerts._open("quarantined", reading, now) is None
        assert Delivery.objects.count() == 1


def test_a_year_after_it_was_over_an_alert_is_forgotten_with_its_messages(now):
    old = opened(opened_at=now - timedelta(days=400), closed_at=now - timedelta(days=366))
    Delivery.objects.create(alert=old, is_over=True, channel="mail")
    opened(subject="still open", opened_at=now - timedelta(days=400))
    tasks.forget_deflections()

    assert [one.subject for one in Alert.objects.all()] == ["still open"]
    assert not Delivery.objects.exists()


class TestMail:
    def test_admins_with_a_confirmed_address_are_told_where_none_is_set(self, admin, agent, now):
        UserFactory(confirmed=False).groups.set(admin.groups.all())
        quiet = UserFactory(mail_pace="none")
        quiet.groups.set(admin.groups.all())
        assert alerts.addresses() == [admin.email]
        quarantine(now)
        alerts.look(now=now)
        assert alerts.deliver_due(now=now) == 1

        message = mail.outbox[0]
        assert message.to == [admin.email]
        assert message.subject == "Alert: Questions in quarantine"
        assert "Measured: 1; the bound is 0." in message.body
        assert "/manage/monitoring/" in message.body
        assert alerts.deliver_due(now=now) == 0

    def test_a_mail_that_is_put_off_is_tried_again_and_says_so(self, told, now, monkeypatch):
        def busy(message):
            raise smtplib.SMTPSenderRefused(450, b"later", "us")

        row = delivery("mail", due_at=now)
        with monkeypatch.context() as patched:
            patched.setattr(mail.EmailMessage, "send", busy)
            assert alerts.deliver_due(now=now) == 0
        row.refresh_from_db()
        assert (row.state, row.said, row.due_at) == ("waiting", "PutOff", now + MINUTE)
        assert alerts.deliver_due(now=now + MINUTE / 2) == 0
        assert alerts.deliver_due(now=now + 2 * MINUTE) == 1
        assert len(mail.outbox) == 1

    def test_a_mail_that_never_leaves_is_given_up(self, told, now, monkeypatch):
        def away(message):
            raise OSError

        monkeypatch.setattr(mail.EmailMessage, "send", away)
        row = delivery("mail", due_at=now)
        for _ in range(8):
            row.refresh_from_db()
            alerts.deliver_due(now=row.due_at)
        row.refresh_from_db()

        assert (row.state, row.attempts) == ("failed", 8)

    def test_nothing_that_somebody_wrote_stands_in_it(self, told, now):
        product = QuestionFactory(title="Wombat").product
        alert = opened(Alert.Rule.DRIFT, subject=f"probability product:{product.pk}", value=0.314)
        row = Delivery.objects.create(alert=alert, is_over=True, channel="mail")
        written = alerts.composed(row, ["a@example.com"])

        assert written.subject == "Over: Scores look otherwise than at first"
        assert "Probability: Product: Lamp" in written.body
        assert alerts.message(row)["data"]["subject"] == f"probability product:{product.pk}"


class Listener(http.server.BaseHTTPRequestHandler):
    """A program that is told of alerts, and answers as it is told to."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.got.append((dict(self.headers), self.rfile.read(length)))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def program(settings):
    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    server.got, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.ALERT_WEBHOOK = f"http://127.0.0.1:{server.server_port}/hook?x=1"
    settings.ALERT_WEBHOOK_SECRET = SECRET
    settings.ALERT_WEBHOOK_PRIVATE = True
    yield server
    server.shutdown()
    server.server_close()


class TestWebhook:
    def test_a_program_gets_what_it_can_verify(self, program, now):
        row = delivery(due_at=now)
        assert alerts.deliver_due(now=now) == 1

        headers, body = program.got[0]
        said = Webhook(SECRET).verify(body, headers)
        assert said["type"] == "alert.opened"
        assert said["data"]["alert"] == row.alert_id
        assert said["data"]["value"] == 3.0
        assert headers["webhook-id"] == f"alert-{row.pk}"
        assert headers["Host"] == f"127.0.0.1:{program.server_port}"
        row.refresh_from_db()
        assert (row.state, row.said) == ("sent", "HTTP 204")

    def test_it_is_signed_as_the_standard_has_it(self):
        at = timezone.datetime.fromtimestamp(1614265330, tz=timezone.get_fixed_timezone(330))
        signed = webhooks.headers(
            '{"test": 2432232314}', key="msg_p5jXN8AQM9LWM0D4loKWxJek", secret=SECRET, now=at
        )

        assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        assert signed["webhook-timestamp"] == "1614265330"

    @pytest.mark.parametrize("status", [302, 404, 500])
    def test_what_is_not_taken_is_sent_again_under_the_same_id(self, program, now, status):
        program.answers = [status]
        row = delivery(due_at=now)
        alerts.deliver_due(now=now)
        row.refresh_from_db()
        assert (row.state, row.said) == ("waiting", f"HTTP {status}")
        assert len(program.got) == 1  # a redirect is not followed

        assert alerts.deliver_due(now=now + 2 * MINUTE) == 1
        assert {headers["webhook-id"] for headers, _body in program.got} == {f"alert-{row.pk}"}

    def test_a_program_that_is_away_gets_it_later(self, program, now):
        program.shutdown()
        program.server_close()
        row = delivery(due_at=now)
        alerts.deliver_due(now=now)
        row.refresh_from_db()

        assert (row.state, row.said) == ("waiting", "ConnectionRefusedError")

    def test_an_admin_can_send_it_again(self, program, now, admin):
        row = delivery(due_at=now, state="failed", attempts=8)
        alerts.redeliver(delivery=row, by=admin, now=now)

        assert alerts.deliver_due(now=now) == 1
        assert AuditEntry.objects.get(action="alert_redelivered").by == admin

    @pytest.mark.parametrize(
        "url",
        [
            "https://127.0.0.1/", "https://10.1.2.3/", "https://192.168.1.1:8443/x",
            "https://169.254.169.254/latest/meta-data/", "https://[::1]/", "https://0.0.0.0/",
            "https://[::ffff:127.0.0.1]/", "https://[fe80::1]/", "https://[fd00::1]/",
            "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://100.64.0.1/",
            "https://localhost/", "https://224.0.0.1/", "http://8.8.8.8/",
            "https://user:word@8.8.8.8/", "ftp://8.8.8.8/", "https:///x", "https://8.8.8.8:99999/",
            "https://2130706433/", "https://127.1/", "https://0x7f.0.0.1/",
            "https://8.8.8.8/a b", "https://8.8.8.8/\r\nX: y",
        ],
    )  # fmt: skip
    def test_nothing_is_sent_into_our_own_network(self, url):
        with pytest.raises((webhooks.AddressRefused, OSError)):
            webhooks.resolve(url, allows_private=False)

    def test_a_public_address_is_one(self):
        found = webhooks.resolve("https://8.8.8.8/hook?a=1", allows_private=False)

        assert (found.address, found.port, found.path) == ("8.8.8.8", 443, "/hook?a=1")

    def test_a_name_that_has_one_private_address_is_refused(self, monkeypatch):
        rows = [(2, 1, 6, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.1")]
        monkeypatch.setattr(webhooks.socket, "getaddrinfo", lambda *a, **k: rows)

        with pytest.raises(webhooks.AddressRefused):
            webhooks.resolve("https://rebinding.example/", allows_private=False)

    def test_the_machine_that_was_looked_at_is_the_one_that_is_asked(self, program, monkeypatch):
        asked = []

        def look_up(host, port, *_, **__):
            asked.append(host)
            is_first = host == "rebinding.example" and asked.count(host) == 1
            address = "127.0.0.1" if is_first or host == "127.0.0.1" else "10.9.9.9"
            return [(2, 1, 6, "", (address, port))]

        monkeypatch.setattr(webhooks.socket, "getaddrinfo", look_up)
        url = f"http://rebinding.example:{program.server_port}/"
        connected = []
        connect = webhooks.socket.create_connection
        monkeypatch.setattr(
            webhooks.socket,
            "create_connection",
            lambda where, *a: connected.append(where) or connect(where, *a),
        )
        webhooks.send(url, {}, key="k", secret=SECRET, now=timezone.now(), allows_private=True)

        assert connected == [("127.0.0.1", program.server_port)]
        assert asked.count("rebinding.example") == 1
        assert program.got[0][0]["Host"].startswith("rebinding.example:")

    def test_a_refused_address_is_given_up_at_once(self, program, now, settings):
        settings.ALERT_WEBHOOK_PRIVATE = False
        settings.ALERT_WEBHOOK = settings.ALERT_WEBHOOK.replace("http:", "https:")
        row = delivery(due_at=now)
        alerts.deliver_due(now=now)
        row.refresh_from_db()

        assert (row.state, row.said) == ("failed", "not a public address")
        assert program.got == []

    @pytest.mark.parametrize(
        ("url", "secret", "found"),
        [
            ("", "", None),
            ("https://8.8.8.8/", SECRET, None),
            ("http://8.8.8.8/", SECRET, "dedup.E005"),
            ("https://8.8.8.8/", "", "dedup.E006"),
            ("https://8.8.8.8/", "whsec_c2hvcnQ=", "dedup.E006"),
            ("https://8.8.8.8/", "whsec_???", "dedup.E006"),
        ],
    )
    def test_a_setting_that_cannot_work_is_said_at_the_start(self, settings, url, secret, found):
        settings.ALERT_WEBHOOK, settings.ALERT_WEBHOOK_SECRET = url, secret

        ids = {one.id for one in run_checks()}
        assert ids & {"dedup.E005", "dedup.E006"} == ({found} if found else set())
