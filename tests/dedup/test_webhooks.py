"""Receivers that misbehave, at the other end of real sockets; addresses that are none."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise

import pytest
from django.core.checks import run_checks
from django.utils import timezone

from dedup import alerts, webhooks
from dedup.models import Alert, Delivery

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE = 5.0  # whoever waits longer than this waits for ever


@contextmanager
def receiver(behave):
    """The port of a program that takes one connection after the other, each given to `behave`."""
    ended = threading.Event()

    def serve(listening):
        while not ended.is_set():
            try:
                taken, _ = listening.accept()
            except TimeoutError:
                continue
            with taken, suppress(OSError):  # hung up on
                behave(taken, ended)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        thread = threading.Thread(target=serve, args=[listening])
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def drip(connection, ended, *, first, again):
    """Bytes now and then, each in time for a timeout that begins anew with each."""
    connection.sendall(first)
    while not ended.wait(0.05):
        connection.sendall(again)


def drips_its_status(connection, ended):
    drip(connection, ended, first=b"HTTP/1.1 2", again=b"0")


def drips_a_header(connection, ended):
    drip(connection, ended, first=b"HTTP/1.1 204 No\r\nX-Slow: ", again=b"x")


def drips_headers(connection, ended):
    drip(connection, ended, first=b"HTTP/1.1 204 No\r\n", again=b"X: y\r\n")


def says_go_on_for_ever(connection, ended):
    drip(connection, ended, first=b"", again=b"HTTP/1.1 100 Continue\r\n\r\n")


def says_nothing(connection, ended):
    ended.wait(PATIENCE)


def send(url, **options):
    return webhooks.send(
        url, {"a": 1}, key="k", secret=SECRET, now=timezone.now(), allows_private=True, **options
    )


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(webhooks, "DEADLINE_SECONDS", 0.5)


@pytest.mark.parametrize(
    "behave",
    [drips_its_status, drips_a_header, drips_headers, says_go_on_for_ever, says_nothing],
)
def test_a_receiver_that_drips_is_hung_up_on_at_the_deadline(hurried, behave):
    with receiver(behave) as port:
        begun = time.monotonic()
        with pytest.raises(webhooks.NotTaken, match="too slow"):
            send(f"http://127.0.0.1:{port}/")

        assert 0.4 < time.monotonic() - begun < PATIENCE / 2


def test_one_that_drips_its_half_of_tls_is_hung_up_on_too(hurried):
    def shakes_hands_slowly(connection, ended):
        # a record of handshake, 16 kB long, that never comes to its end
        drip(connection, ended, first=b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", again=b"\x03")

    with receiver(shakes_hands_slowly) as port:
        begun = time.monotonic()
        with pytest.raises(webhooks.NotTaken):
            send(f"https://127.0.0.1:{port}/")

        assert time.monotonic() - begun < PATIENCE / 2


def test_a_body_that_never_ends_is_not_waited_for():
    def answers_without_end(connection, ended):
        drip(connection, ended, first=b"HTTP/1.1 200 OK\r\n\r\n", again=b"x" * 1000)

    with receiver(answers_without_end) as port:
        begun = time.monotonic()
        assert send(f"http://127.0.0.1:{port}/") == 200

        assert time.monotonic() - begun < PATIENCE / 2


def test_no_thread_and_no_connection_is_left_behind(hurried):
    with receiver(drips_a_header) as port:
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(webhooks.NotTaken):
                send(f"http://127.0.0.1:{port}/")

        assert threading.active_count() == before


NO_NAMES = [
    "https://" + "a" * 64 + ".example/",
    "https://a..example/",
    "https://.example/",
    "https://example../",
    "https://" + ".".join(["abcdefg"] * 40) + "/",
    "https://./",
]


@pytest.mark.parametrize(
    "url",
    [
        *NO_NAMES, "https://8.8.8.8:0/", "https://8.8.8.8:-1/", "https://8.8.8.8:x/",
        "https://[::1/", "https://[x]/", "https://\u00fcber.example/", "https://a\u2100b.example/",
        "https://a\x00b/", "", "//8.8.8.8/", "8.8.8.8", "mailto:a@example.com",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_refused_in_words(settings, url):
    with pytest.raises(webhooks.AddressRefused) as refused:
        webhooks.send(url, {}, key="k", secret=SECRET, now=timezone.now())
    assert str(refused.value)

    settings.ALERT_WEBHOOK, settings.ALERT_WEBHOOK_SECRET = url, SECRET
    assert ("dedup.E005" in {one.id for one in run_checks()}) == bool(url)


@pytest.mark.parametrize("found", [[], [(0, 0, 0, "", ("no address", 443))]])
def test_a_name_that_is_found_without_an_address_is_refused(monkeypatch, found):
    monkeypatch.setattr(webhooks.socket, "getaddrinfo", lambda *_, **__: found)

    with pytest.raises(webhooks.AddressRefused):
        webhooks.send("https://hook.example/", {}, key="k", secret=SECRET, now=timezone.now())


def test_a_name_that_points_into_our_network_a_moment_later_gains_nothing(monkeypatch):
    """All connections go to what was looked at; of it, nothing was private."""
    answers = iter([[(2, 1, 6, "", ("93.184.216.34", 443))], [(2, 1, 6, "", ("127.0.0.1", 443))]])
    monkeypatch.setattr(webhooks.socket, "getaddrinfo", lambda *_, **__: next(answers))
    connected = []

    def connect(where, *_):
        connected.append(where)
        raise ConnectionRefusedError

    monkeypatch.setattr(webhooks.socket, "create_connection", connect)
    with pytest.raises(webhooks.NotTaken):
        webhooks.send("https://hook.example/", {}, key="k", secret=SECRET, now=timezone.now())

    assert connected == [("93.184.216.34", 443)]


def put(now, number=1):
    return [
        Delivery.objects.create(
            alert=Alert.objects.create(
                rule=Alert.Rule.DRIFT, subject=f"{n}", value=3, worst=3, bound=0
            ),
            is_over=False, channel="webhook", due_at=now,
        )
        for n in range(number)
    ]  # fmt: skip


@pytest.mark.django_db
class TestDeliveries:
    @pytest.fixture(autouse=True)
    def secret(self, settings):
        settings.ALERT_WEBHOOK_SECRET, settings.ALERT_WEBHOOK_PRIVATE = SECRET, True

    def test_one_that_drips_is_asked_again_after_growing_pauses_then_given_up(
        self, hurried, settings
    ):
        now = timezone.now()
        (row,) = put(now)
        due = []
        with receiver(drips_a_header) as port:
            settings.ALERT_WEBHOOK = f"http://127.0.0.1:{port}/"
            for _ in range(len(alerts.PAUSES) + 3):
                row.refresh_from_db()
                due.append(row.due_at)
                alerts.deliver_due(now=row.due_at)
        row.refresh_from_db()

        assert (row.state, row.said, row.attempts) == ("failed", "too slow", 8)
        pauses = [later - sooner for sooner, later in pairwise(due)]
        assert pauses[: len(alerts.PAUSES)] == alerts.PAUSES
        assert sorted(alerts.PAUSES) == alerts.PAUSES

    def test_one_that_drips_holds_a_run_up_once_whatever_is_due(self, hurried, settings):
        now = timezone.now()
        rows = put(now, number=6)
        with receiver(drips_a_header) as port:
            settings.ALERT_WEBHOOK = f"http://127.0.0.1:{port}/"
            begun = time.monotonic()
            alerts.deliver_due(now=now)

        assert time.monotonic() - begun < 2 * webhooks.DEADLINE_SECONDS
        assert Delivery.objects.filter(attempts=1).count() == 1
        assert Delivery.objects.filter(state="waiting").count() == len(rows)

    def test_one_whose_tries_were_all_cut_off_is_given_up_and_said_so(self, settings, caplog):
        settings.ALERT_WEBHOOK = "http://127.0.0.1:9/"
        now = timezone.now()
        (row,) = put(now)
        Delivery.objects.update(attempts=8, tried_at=now - timedelta(hours=1))
        alerts.deliver_due(now=now)
        row.refresh_from_db()

        assert (row.state, row.said, row.attempts) == ("failed", "cut off", 8)
        assert "given up" in caplog.text

    @pytest.mark.parametrize("url", NO_NAMES)
    def test_an_address_that_is_none_is_given_up_at_once(self, settings, url):
        settings.ALERT_WEBHOOK = url
        now = timezone.now()
        (row,) = put(now)
        alerts.deliver_due(now=now)
        row.refresh_from_db()

        assert (row.state, row.said) == ("failed", "not a name that a host can have")

    def test_without_a_secret_that_signs_nothing_is_sent(self, settings):
        settings.ALERT_WEBHOOK, settings.ALERT_WEBHOOK_SECRET = "http://127.0.0.1:9/", ""
        now = timezone.now()
        (row,) = put(now)
        alerts.deliver_due(now=now)
        row.refresh_from_db()

        assert (row.state, row.said) == ("failed", "no secret that signs")
