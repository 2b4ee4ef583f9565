"""Every route that writes, sent all that no form of ours sends: never a failure, and what is
refused is refused in words. Routes come from the URL conf, so that a new one is asked as well."""

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from unittest.mock import patch
from urllib.parse import quote, urlencode

import pytest
from allauth.mfa.models import Authenticator
from django.db import transaction
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from drf_spectacular.generators import SchemaGenerator

from support.http import Request
from support.wsgi import application
from tests.test_access import (
    EXPECTED,
    FOR_GUESTS,
    ROLES,
    SIGNED_IN_ONLY,
    address,
    body,
    lasting_world,
    path_of,
    routes,
)

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
PARTS = "multipart/form-data; boundary=part"
DONE = {"200", "201", "202", "204", "302", "302="}
HUGE = b"x" * 1_000_000


# --- What writes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """A route and how it is written to, by whom, about which row: so that it is not refused."""

    name: str
    method: str = "POST"
    role: str = "admin"
    row: str = ""

    @property
    def is_api(self):
        return "api" in self.name

    @property
    def id(self):
        return self.name if self.method == "POST" else f"{self.name} {self.method}"


def writing():
    """Each with who may do it, where EXPECTED knows one."""
    for name, methods in EXPECTED.items():
        for method in sorted(set(methods) - {"GET"}):
            found = [
                Route(name, method, role, row)
                for row, said in methods[method].items()
                for role, word in zip(ROLES, said.split(), strict=True)
                if word in DONE or word == "409"
            ]
            if found:
                yield max(found, key=lambda route: ROLES.index(route.role))
    yield Route("ask", role="guest")
    yield Route("guest_follow", role="guest", row="public")
    for name in sorted(SIGNED_IN_ONLY):
        yield Route(name, role="customer")
    for name in sorted(FOR_GUESTS):
        yield Route(name, role="guest")


WRITING = sorted(set(writing()), key=lambda route: (route.id, route.role))
BY_ID = {f"{route.id} by {route.role}": route for route in WRITING}
ABOUT_ROWS = [
    route for route in WRITING
    if "missing" in EXPECTED.get(route.name, {}).get(route.method, {}) and route.role != "guest"
]  # fmt: skip
ORDER = {route: number for number, route in enumerate(WRITING)}
every_route = pytest.mark.parametrize("route", BY_ID.values(), ids=list(BY_ID))


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker):
    """Made once: what a test does to it is taken back."""
    with django_db_blocker.unblock(), lasting_world() as made:
        made.sessions = {role: session_of(person) for role, person in made.people.items()}
        made.fields = {}  # of each route, as they were found
        yield made


def session_of(person):
    """The cookies of somebody who signed in once, for all tests."""
    client = Client()
    if person:
        client.force_login(person)
    return {name: cookie.value for name, cookie in client.cookies.items()}


@pytest.fixture(autouse=True)
def as_the_server_makes_requests(monkeypatch, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # hundreds
    monkeypatch.setattr("django.test.client.WSGIRequest", Request)


def a_third(kinds, route):
    """What is decided before any view, or looks to each view like nothing at all, is sent to every
    third route: each kind to another third. Some routes get all of it."""
    if route.name in GET_ALL:
        return list(kinds)
    return [kind for number, kind in enumerate(kinds) if (number + ORDER[route]) % 3 == 0]


GET_ALL = {"account_login", "answer", "ask", "api:question-list", "dedup_api:flag-reviews"}


def client_of(world, role):
    client = Client(raise_request_exception=False)
    for name, value in world.sessions[role].items():
        client.cookies[name] = value
    return client


@dataclass
class Sender:
    """Who sends to a route, and what is asked of each answer."""

    route: Route
    world: object

    def __post_init__(self):
        self.client = client_of(self.world, self.route.role)
        if self.route.name in EXPECTED:
            self.path = address(self.world, self.route.name, self.route.row)
            self.good = body(self.world, self.route.name, self.route.row)
        else:
            self.path = path_of(dict(routes())[self.route.name], self.route.name)
            self.good = {}

    def send(self, content, kind=None, *, path=None, **headers):
        """Send and take back; a failure has to be the site's, and to be none."""
        kind = kind or (JSON if self.route.is_api else FORM)
        with transaction.atomic():
            answer = self.client.generic(
                self.route.method, path or self.path, content, content_type=kind, headers=headers
            )
            transaction.set_rollback(True)
        require_designed(answer, self.route, content, is_asked_by_script=kind == JSON)
        return answer

    def fields(self):
        if self.route not in self.world.fields:
            self.world.fields[self.route] = self._fields()
        return self.world.fields[self.route]

    def _fields(self):
        """All names that are read of a form, or that the description of the API has; of those that
        differ by a number, one."""
        if self.route.is_api:
            return sorted(set(self.good) | described(self.path, self.route.method))
        with names_read() as read:
            self.send(urlencode(self.good))
            self.send("")
        names = sorted(set(self.good) | read - {"csrfmiddlewaretoken"}, reverse=True)
        return sorted({re.sub(r"\d+$", "", name): name for name in names}.values())

    def form(self, given):
        return json.dumps(given) if self.route.is_api else encoded(given)


@cache
def described(path, method):
    """The fields of a program's body, as the API describes itself."""
    found = SchemaGenerator().get_schema(request=None, public=True)
    known = found["paths"].get(re.sub(r"/\d+/", "/{id}/", path), {}).get(method.lower(), {})
    content = known.get("requestBody", {}).get("content", {}).get(JSON, {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    fields = found["components"]["schemas"].get(name, {}).get("properties", {})
    return {name for name, field in fields.items() if not field.get("readOnly")}


@contextmanager
def names_read():
    names, get_item, get_list = set(), QueryDict.__getitem__, QueryDict.getlist

    def one(self, name):
        names.add(name)
        return get_item(self, name)

    def several(self, name, *args):
        names.add(name)
        return get_list(self, name, *args)

    with patch.object(QueryDict, "__getitem__", one), patch.object(QueryDict, "getlist", several):
        yield names


def require_designed(answer, route, sent, *, is_asked_by_script=False):
    """A page of ours or problem details, in words; never a failure, nor what the code says of it.

    Allauth answers scripts with the form and its errors.
    """
    told = f"{route.id} answered {answer.status_code} to {sent[:200]!r}"
    said = b"".join(answer) if answer.streaming else answer.content
    assert answer.status_code < 500, told
    assert b"Traceback" not in said, told
    if answer.status_code < 400:
        return
    if route.is_api:
        assert answer["Content-Type"] == "application/problem+json", told
        problem = json.loads(said)
        assert problem["code"], told
        assert problem["detail"], told
        assert problem["request_id"], told
    elif is_asked_by_script and answer["Content-Type"] == JSON:
        assert route.name not in EXPECTED, told
        assert json.loads(said)["form"], told
    else:
        assert answer["Content-Type"].startswith("text/html"), told
        words = re.sub(r"<[^>]+>", " ", said.decode())
        assert len(words.split()) >= 3, told
        assert "<main" in said.decode() or "<!doctype" not in said.decode(), told


@pytest.fixture
def sender(world, route):
    return Sender(route, world)


def test_every_route_that_writes_is_asked(world):
    """Found by asking all of the URL conf: what does not answer 405 to a write takes it."""
    known = {(route.name, route.method) for route in WRITING}
    rows = {name: next(iter(methods["POST"])) for name, methods in EXPECTED.items()}
    taken = set()
    for name, route in routes():
        path = address(world, name, rows[name]) if name in EXPECTED else path_of(route, name)
        for method in ("POST", "PUT", "PATCH", "DELETE") if "api" in name else ("POST",):
            with transaction.atomic():
                if client_of(world, "admin").generic(method, path).status_code != 405:
                    taken.add((name, method))
                transaction.set_rollback(True)

    assert taken <= known


# --- In the place of a text -------------------------------------------------------------------

ODD_NUMBERS = {
    "5,000 digits": "9" * 5000,
    "19 digits": "9" * 19,
    "a digit that is none": "\u00b2",
}
ODD_WORDS = {
    "21,000 characters": "x" * 21_000,
    "what others would run": "\u202e=cmd|'<script>\"\\;--%s{x}../\x01\x1b[31m\u2066http://[::1",
}
BAD = {  # also in all fields at once
    "NUL": "a\0b",
    "a lone surrogate": "\ud800",
    "characters that are not seen": "\u200b\u200d\u2060\ufeff",
    "below zero": "-1",
    "infinite": "1e999",
    "nothing": "",
    "a time": "9999-12-31T23:59:59.999999+99:99",
}
VALUES = {
    "null": None,
    "a truth": True,
    "a list": [1],
    "an empty list": [],
    "an object": {"id": 1},
    "an empty object": {},
    "a number beyond 64 bits": 10**30,
    "a number beyond 32 bits": 2**40,
    "a number below zero": -1,
    "a large fraction": 1e300,
    "an id of nothing": 10**9,
    "lists in lists": [[[[[[[[[[1]]]]]]]]]],
}


def encoded(given):
    """As a browser would send it, if it had these characters."""
    return urlencode(given, quote_via=lambda s, *_: quote(s.encode("utf-8", "surrogatepass")))


@every_route
def test_a_bad_text_in_any_field_is_refused_or_taken_as_text(sender):
    names = sender.fields()
    at_once = BAD if len(names) > 1 else BAD | ODD_NUMBERS | ODD_WORDS
    for text in at_once.values() if names else []:
        answer = sender.send(sender.form(sender.good | dict.fromkeys(names, text)))
        if "\0" in text or ("\ud800" in text and sender.route.is_api):
            assert answer.status_code == 400
    for name in names if len(names) > 1 else []:
        for text in odd_for(sender.good.get(name, "")).values():
            sender.send(sender.form(sender.good | {name: text}))


def odd_for(good):
    """What is odd where this is good: what is not known to be words may be read as a number."""
    if not good:
        return ODD_NUMBERS | ODD_WORDS
    return ODD_NUMBERS if re.fullmatch(r"[0-9.]+", str(good)) else ODD_WORDS


@every_route
def test_a_value_of_another_kind_is_refused(sender):
    """A form has texts only: there, one name stands twice."""
    names = sender.fields()
    for name in names:
        for value in VALUES.values() if sender.route.is_api else []:
            sender.send(json.dumps(sender.good | {name: value}))
        if not sender.route.is_api:
            sender.send(encoded({name: "x"}))
    if names and not sender.route.is_api:
        sender.send("&".join(encoded(sender.good | dict.fromkeys(names, text)) for text in "ab"))


# --- In the place of a whole body -------------------------------------------------------------


def part(headers, content="x"):
    return f"--part\r\n{headers}\r\n\r\n{content}\r\n--part--\r\n".encode()


NAMED = 'Content-Disposition: form-data; name="body"'
REFUSED_FORMS = {
    "1 MB": (HUGE, FORM, 413),
    "1 MB in parts": (HUGE, PARTS, 413),
    "a NUL in a name": (b"bo%00dy=x", FORM, 400),
    "1,500 fields": (b"&".join(b"a%d=1" % n for n in range(1500)), FORM, 400),
    "parts without an edge": (b"x", "multipart/form-data", 400),
    "parts with an odd edge": (b"x", "multipart/form-data; boundary=\xb2", 400),
    "another alphabet": (b"body=x", f"{FORM}; charset=utf-16", 415),
    "an alphabet with half characters": (part(NAMED, "+2AA-"), f"{PARTS}; charset=utf-7", 415),
    "an alphabet that is none": (b"body=x", f"{FORM}; charset=hex", 415),
}
ODD_FORMS = {
    "nothing": (b"", FORM),
    "no UTF-8": (b"body=%ff%fe&title=%ED%A0%80&reason=\xff\xfe", FORM),
}
EMPTY_FORMS = {  # no field of ours is in them, in one way or the other
    "only separators": (b"&&==&=&;", FORM),
    "JSON": (b'{"body": "x"}', JSON),
    "a text": (b"body=x", "text/plain"),
    "no kind": (b"body=x", "x"),
    "parts that do not end": (b"--part\r\n" + NAMED.encode() + b"\r\n\r\nx", PARTS),
    "a part without a name": (part("Content-Disposition: form-data"), PARTS),
    "a part in no alphabet": (part("Content-Disposition: form-data; name*=hex''%ff"), PARTS),
    "a broken part": (part(NAMED + "\r\nContent-Transfer-Encoding: base64", "=x=="), PARTS),
    "a file": (part(NAMED + '; filename="../../x.html"\r\nContent-Type: text/html'), PARTS),
}
REFUSED_JSON = {
    "1 MB": (HUGE, JSON, 413),
    "a form": (b"title=x", FORM, 415),
    "parts": (part(NAMED), PARTS, 415),
    "another alphabet": (b"{}", f"{JSON}; charset=utf-16", 415),
    "an alphabet that is none": (b"{}", f"{JSON}; charset=hex", 415),
    "broken": (b'{"title": ', JSON, 400),
    "UTF-16": (json.dumps({"title": "x"}).encode("utf-16"), JSON, 400),
    "no UTF-8": (b'{"title": "\xff"}', JSON, 400),
    "NaN": (b'{"title": NaN}', JSON, 400),
    "5,000 digits": (b'{"title": %s}' % (b"9" * 5000), JSON, 400),
    "5,000 deep": (b"[" * 5000 + b"]" * 5000, JSON, 400),
    "deep and never closed": (b'{"a":' * 40_000, JSON, 400),
    "a NUL": (b'{"title": "a\\u0000b"}', JSON, 400),
    "half a character": (b'{"title": "\\ud800"}', JSON, 400),
    "a key twice": (b'{"title": "a", "title": "b"}', JSON, 400),
    "an unknown field": (b'{"colour": "red"}', JSON, 400),
    "a list": (b"[]", JSON, 400),
    "a text": (b'"title"', JSON, 400),
    "a number": (b"5", JSON, 400),
}


@every_route
def test_a_body_of_another_kind_is_refused(sender):
    route = sender.route
    if not route.is_api:
        for name in [*ODD_FORMS, *a_third(EMPTY_FORMS, route)]:
            sender.send(*(ODD_FORMS | EMPTY_FORMS)[name])
    reads_body = not route.is_api or sender.send(b"{").status_code == 400
    bodies = REFUSED_JSON if route.is_api else REFUSED_FORMS
    for name in bodies if route.is_api and reads_body else a_third(bodies, route):
        content, kind, expected = bodies[name]
        said = sender.send(content, kind).status_code
        assert said == expected or not (reads_body or expected == 413), name


# --- Around the body --------------------------------------------------------------------------

ODD_HEADERS = {
    "what views read": {
        "Referer": "http://[::1",
        "Origin": "http://[::1",
        "HX-Request": "true",
        "HX-Current-URL": "http://[::1",
        "HX-Target": "\xff",
        "X-Desk": "\xff",
        "Accept-Language": "x" * 5000 + ", de;q=9e999, \xb2-\xb2;q=\xb2",
        "X-Forwarded-For": "x, \xb2, ::",
        "X-Forwarded-Host": "[",
        "X-Request-ID": "\xff",
    },
    "versions": {
        "If-Match": "9" * 5000,
        "If-None-Match": "\xff",
        "If-Modified-Since": "\xb2",
        "Range": "bytes=9-1",
    },
    "wanted kinds": {"Accept": "text/html;q=x, x; a*=none''x, ;;, \xb2"},
}
HEADERS_READ_BEFORE = {
    "a wanted kind that is too long": {"Accept": "x; a*" + "9" * 5000 + "=1"},
    "cookies": {"Cookie": "sessionid=%00\xff; csrftoken=\xb2; django_language=../x; =; ;"},
    "a length": {"Content-Length": "\xb2"},
    "a longer length": {"Content-Length": "9" * 5000},
}
HEADERS_OF_PROGRAMS = {
    "a token": {"Authorization": "Bearer \xff\xfe"},
    "a long token": {"Authorization": "Bearer " + "x" * 5000},
    "a scheme": {"Authorization": "Basic =x=="},
    "a key": {"Idempotency-Key": "\xff" * 200},
    "a long key": {"Idempotency-Key": "x" * 201},
}  # fmt: skip


@every_route
def test_odd_headers_never_make_it_fail(sender):
    before = HEADERS_READ_BEFORE | HEADERS_OF_PROGRAMS
    chosen = before if sender.route.is_api else a_third(before, sender.route)
    for name in [*ODD_HEADERS, *chosen]:
        headers = (ODD_HEADERS | before)[name]
        with transaction.atomic():
            answer = sender.client.generic(
                sender.route.method, sender.path, sender.form(sender.good),
                content_type=JSON if sender.route.is_api else FORM, headers=headers,
            )  # fmt: skip
            transaction.set_rollback(True)
        require_designed(answer, sender.route, name)


@pytest.mark.parametrize("route", ABOUT_ROWS, ids=[route.id for route in ABOUT_ROWS])
def test_a_row_that_is_not_there_is_said_to_be_missing(sender, world, route):
    path = address(world, route.name, "missing")
    answer = sender.send(sender.form(sender.good), path=path)

    assert answer.status_code in {404, 410}
    huge = re.sub(r"\d{10}", "9" * 400, path)
    assert sender.send(sender.form(sender.good), path=huge).status_code in {404, 410}


SENT_BY_MAIL_PROGRAMS = {"unsubscribe"}


@every_route
def test_a_write_that_another_site_sends_is_refused(sender):
    sender.client.handler.enforce_csrf_checks = True

    answer = sender.send(sender.form(sender.good))

    is_refused = answer.status_code in {401, 403, 405}
    assert is_refused or sender.route.name in SENT_BY_MAIL_PROGRAMS


KINDS = [
    "x; charset*=none''x", "x; charset*=utf-7''+2AA-", "x; a*=idna''%ff", "x; a*" + "9" * 5000,
    "x; charset=hex", "x; charset=\xb2", ";;;", "\xff", "x; boundary*=none''x",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/", "/ask/", "/accounts/login/", "/api/v1/questions/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kind_that_cannot_be_read_does_not_break_the_server(method, path, kind):
    """The server makes the request before any middleware, and reads it there."""
    answer = Client().generic(method, path + "?q=x", b"a=b", content_type=kind)

    assert answer.status_code < 500
    assert answer.content


CREDENTIALS = [
    "9" * 5000, "[" * 5000, "[]", "1", '"\\ud800"', "{}", '{"id": "x", "rawId": [], "response": 1}',
    '{"id": "x", "rawId": "eA", "type": "public-key", "response": {"userHandle": "\\u0000"}}',
]  # fmt: skip


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize(
    "name", ["mfa_login_webauthn", "mfa_reauthenticate_webauthn", "mfa_add_webauthn"]
)
def test_a_key_that_is_none_opens_nothing(world, name, credential):
    client = Client()
    if name != "mfa_login_webauthn":
        client.force_login(world.people["customer"])

    answer = client.post(reverse(name), {"credential": credential, "name": "x"})

    assert answer.status_code in {200, 302}
    assert not Authenticator.objects.exists()


def test_the_server_makes_requests_as_these_tests_do():
    assert application.request_class is Request
