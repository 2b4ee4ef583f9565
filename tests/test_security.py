"""What the README says of headers, cookies, passwords and tokens, of every kind of page."""

import re
import runpy

import pytest
from django.test import Client

from support import settings as settings_module
from support.models import ApiToken, User
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
PAGES = [
    "/", "/ask/", "/questions/{}/", "/mine/", "/account/", "/guides/", "/review/",
    "/manage/releases/", "/manage/monitoring/", "/admin/", "/admin/support/question/",
    "/accounts/login/", "/accounts/signup/", "/accounts/2fa/", "/api/v1/questions/",
    "/api/v1/schema/", "/api/v1/docs/", "/api/v1/nothing/", "/nothing/", "/questions/0/", "/livez",
    "/readyz", "/questions/{}/vote/", "/?q=%00",
]  # fmt: skip
HEADERS = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
POLICY = {
    "default-src 'self'", "img-src 'self' data:", "object-src 'none'", "base-uri 'none'",
    "form-action 'self'", "frame-ancestors 'none'",
}  # fmt: skip


@pytest.fixture
def in_service(settings, monkeypatch):
    """The settings that differ where HTTPS is on, as it is unless somebody turns it off."""
    monkeypatch.delenv("HTTPS")
    fresh = runpy.run_path(settings_module.__file__)
    assert fresh["HTTPS"] is True
    for name, value in fresh.items():
        if re.match(r"SECURE_|\w+_COOKIE_|X_FRAME|CONTENT_SECURITY", name):
            setattr(settings, name, value)


@pytest.mark.parametrize("role", ["guest", "customer", "admin"])
def test_every_kind_of_page_has_its_headers(in_service, request, role):
    client, question = Client(), QuestionFactory()
    if role != "guest":
        client.force_login(request.getfixturevalue(role))

    for path in PAGES:
        answer = client.get(path.format(question.pk), secure=True)

        assert answer.status_code < 500, path
        assert {name: answer.get(name) for name in HEADERS} == HEADERS, path
        policy = answer["Content-Security-Policy"].split(";")
        assert {rule.strip() for rule in policy} == POLICY, path


def test_over_plain_http_only_probes_are_answered(in_service):
    for path in PAGES:
        answer = Client().get(path.format(1))

        assert path in {"/livez", "/readyz"} or answer["Location"].startswith("https://"), path


def test_every_cookie_is_for_https_alone_and_no_script_reads_it(in_service, customer):
    client = Client()
    client.get("/accounts/login/", secure=True)
    given = {"login": customer.username, "password": PASSWORD}
    answer = client.post("/accounts/login/", given, secure=True)
    client.post("/language/", {"language": "de", "next": "/"}, secure=True)

    assert answer.status_code == 302
    assert set(client.cookies) == {"csrftoken", "sessionid", "django_language"}
    for cookie in client.cookies.values():
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")


def test_signing_in_makes_a_new_session(customer):
    client = Client()
    session = client.session  # as if somebody else had put it into this browser
    session["known"] = "to somebody else"
    session.save()
    before = client.cookies["sessionid"].value

    client.post("/accounts/login/", {"login": customer.username, "password": PASSWORD})

    assert client.cookies["sessionid"].value not in {"", before}


def test_a_password_is_kept_by_argon2_alone():
    person = User.objects.create_user("ada", password=PASSWORD)

    assert person.password.startswith("argon2$argon2id$")
    assert PASSWORD not in person.password


def test_a_token_is_256_bits_by_chance_and_kept_as_its_hash(customer):
    token, secret = ApiToken.objects.issue(user=customer, name="script")
    _, other = ApiToken.objects.issue(user=customer, name="script")

    assert re.fullmatch(r"ask_[\w-]{43}", secret)
    assert secret != other
    assert secret not in str(ApiToken.objects.values().get(pk=token.pk))
