import re
from datetime import timedelta

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.core import mail
from django.test import Client
from django.utils import timezone

from support import tasks
from support.models import Usage
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
LOGIN = "/accounts/login/"


@pytest.fixture(autouse=True)
def the_clock_stands(monkeypatch):
    """A new stretch might begin in the midst of a test."""
    fixed = timezone.now()
    monkeypatch.setattr("support.signing_in.timezone.now", lambda: fixed)


def person(name):
    return UserFactory(username=name, email=f"{name}@example.org")


@pytest.fixture
def ada(db):
    return person("ada")


def sign_in(name="ada", password="wrong", address="10.0.0.1"):
    given = {"login": name, "password": password}
    return Client(REMOTE_ADDR=address).post(LOGIN, given)


def statuses(answers):
    return [answer.status_code for answer in answers]


class TestPasswords:
    def test_after_five_wrong_ones_not_even_the_right_one_is_looked_at(self, ada):
        answers = [sign_in(address=f"10.0.0.{n}") for n in range(5)]
        answers.append(sign_in(password=PASSWORD, address="10.0.0.9"))

        assert statuses(answers) == [200] * 5 + [429]
        assert 1 <= int(answers[5]["Retry-After"]) <= 300
        assert "Please try again in" in answers[5].content.decode()

    def test_from_one_address_ten_wrong_ones_are_looked_at(self):
        answers = [sign_in(name=f"name{n}") for n in range(11)]

        assert statuses(answers) == [200] * 10 + [429]

    def test_a_person_is_one_whatever_name_is_used(self, ada):
        for name in ("ada", "Ada", "ADA", "ada@example.org", "Ada@Example.org"):
            sign_in(name)

        assert sign_in("AdA", PASSWORD).status_code == 429

    def test_a_right_one_does_not_count(self, ada):
        answers = [sign_in(password=PASSWORD) for _ in range(12)]

        assert statuses(answers) == [302] * 12

    def test_right_ones_in_between_give_no_more_tries(self, ada):
        person("eve")
        for n in range(10):
            sign_in(name=f"name{n}")
            assert n == 9 or sign_in("eve", PASSWORD).status_code == 302

        assert sign_in("eve", PASSWORD).status_code == 429

    def test_who_sets_a_new_one_by_mail_need_not_wait(self, ada, client):
        for n in range(5):
            sign_in(address=f"10.0.0.{n}")
        client.post("/accounts/password/reset/", {"email": ada.email})
        link = re.search(r"https?://[^/]+(/accounts/password/reset/key/\S+)", mail.outbox[-1].body)
        form = client.get(link[1])["Location"]
        client.post(form, {"password1": "other horse battery", "password2": "other horse battery"})

        assert sign_in(password="other horse battery", address="10.0.0.9").status_code == 302

    def test_who_is_signed_in_cannot_guess_the_password_either(self, ada, client):
        client.force_login(ada)

        page = "/accounts/reauthenticate/"
        answers = [client.post(page, {"password": "wrong"}) for _ in range(6)]

        assert statuses(answers) == [200] * 5 + [429]

    def test_the_counts_name_nobody_and_are_forgotten(self, ada, monkeypatch):
        sign_in()
        assert not Usage.objects.filter(spender__in=["ada", "10.0.0.1"])
        assert Usage.objects.count() == 3

        Usage.objects.update(begun_at=timezone.now() - timedelta(hours=3))
        tasks.tidy()

        assert not Usage.objects.exists()


class TestSecondFactors:
    def test_after_five_wrong_codes_none_is_looked_at(self, ada, monkeypatch):
        secret = totp.generate_totp_secret()
        totp.TOTP.activate(ada, secret)
        client = Client()
        client.post(LOGIN, {"login": "ada", "password": PASSWORD})

        page = "/accounts/2fa/authenticate/"
        answers = [client.post(page, {"code": f"00000{n}"}) for n in range(5)]
        right = totp.format_hotp_value(
            totp.hotp_value(secret, next(totp.yield_hotp_counters_from_time()))
        )
        answers.append(client.post(page, {"code": right}))

        assert statuses(answers) == [200] * 5 + [429]
        assert Authenticator.objects.get(user=ada).last_used_at is None


class TestCodes:
    def test_three_codes_a_minute_are_mailed_to_one_address(self, ada):
        answers = [
            Client(REMOTE_ADDR=f"10.0.0.{n}").post("/accounts/login/code/", {"email": ada.email})
            for n in range(4)
        ]

        assert statuses(answers) == [302] * 3 + [429]
        assert len(mail.outbox) == 3

    def test_five_links_a_minute_are_mailed_to_one_address(self, ada):
        page = "/accounts/password/reset/"
        answers = [
            Client(REMOTE_ADDR=f"10.0.0.{n}").post(page, {"email": ada.email}) for n in range(6)
        ]

        assert statuses(answers) == [302] * 5 + [429]
        assert len(mail.outbox) == 5


class TestWhoIsCounted:
    """Behind one proxy it names whom it heard from, at the end; without one nobody is believed."""

    def spoofing(self, count, **headers):
        return statuses(
            Client(REMOTE_ADDR="10.0.0.1").post(
                LOGIN, headers={k.replace("_", "-"): v.format(n) for k, v in headers.items()}
            )
            for n in range(count)
        )

    def test_without_a_proxy_a_made_up_header_is_no_other_client(self):
        assert self.spoofing(31, x_forwarded_for="192.0.2.{}") == [200] * 30 + [429]

    def test_behind_one_proxy_what_it_did_not_add_is_not_believed(self, settings):
        settings.PROXY_COUNT = 1

        assert self.spoofing(31, x_forwarded_for="192.0.2.{}, 198.51.100.7") == [200] * 30 + [429]

    def test_behind_one_proxy_each_client_has_its_own(self, settings):
        settings.PROXY_COUNT = 1

        assert self.spoofing(31, x_forwarded_for="192.0.2.{}") == [200] * 31

    @pytest.mark.parametrize("said", ["", "x", ",", "10.0.0.1:80", "::ffff:10.0.0.1", "\xff"])
    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_no_header_makes_it_fail(self, settings, ada, count, said):
        settings.PROXY_COUNT = count
        client = Client(REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": said})

        assert client.post(LOGIN, {"login": "ada", "password": PASSWORD}).status_code == 302
        assert client.get("/accounts/sessions/").status_code == 200

    def test_half_an_address_of_ipv6_is_one_client(self, settings):
        settings.PROXY_COUNT = 1

        assert self.spoofing(31, x_forwarded_for="2001:db8:1:2::{}")[-1] == 429
        assert self.spoofing(1, x_forwarded_for="2001:db8:1:3::{}") == [200]
