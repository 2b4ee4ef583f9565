"""Every address of the site, asked by everybody, on a web process that is really there."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
from django.conf import settings
from django.contrib.auth.models import Group
from django.test import Client

from support.permissions import ADMIN, AGENT, CUSTOMER
from tests import test_access
from tests.factories import UserFactory

ILL = {("health_of_detection", 503)}  # a probe that says what is so
PATIENCE_SECONDS = 20
CSRF = "d" * 32


@dataclass(frozen=True)
class Visit:
    """What somebody got somewhere; status 599 where no answer came."""

    words: str
    status: int
    seconds: float


def visit(url: str, *, rows: int) -> list[Visit]:
    """Ask for all addresses as each role, and send them what they take: at most so many rows."""
    world = test_access.make_world(*(_person(role) for role in (CUSTOMER, AGENT, ADMIN)))
    roles = {name: world.people[name] for name in ("guest", "customer", "agent")}
    sessions = {name: _session(person) for name, person in roles.items()}
    found = []
    for method, path, given, name in _addresses(world, rows):
        for role, session in sessions.items():
            one = _ask(session, method, url + path, given, f"{role} {method} {path}")
            if (name, one.status) not in ILL:
                found.append(one)
    return found


def _addresses(world: Any, rows: int) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    for name, methods in test_access.EXPECTED.items():
        for method, known in methods.items():
            for row in list(known)[:rows]:
                given = test_access.body(world, name, row) if method != "GET" else {}
                yield method, test_access.address(world, name, row), given, name
    routes = dict(test_access.routes())
    for name in sorted(test_access.FOR_GUESTS | test_access.SIGNED_IN_ONLY - {"account_logout"}):
        yield "GET", test_access.path_of(routes[name], name), {}, name


def _person(role: str) -> Any:
    person = UserFactory(username=f"walking-{role}")
    person.groups.add(Group.objects.get(name=role))
    return person


def _session(person: Any) -> requests.Session:
    session = requests.Session()
    session.cookies.set(settings.CSRF_COOKIE_NAME, CSRF)
    session.headers["X-CSRFToken"] = CSRF
    if person:
        client = Client()
        client.force_login(person)
        key = client.cookies[settings.SESSION_COOKIE_NAME].value
        session.cookies.set(settings.SESSION_COOKIE_NAME, key)
    return session


def _ask(
    session: requests.Session, method: str, url: str, given: dict[str, Any], words: str
) -> Visit:
    is_api = "/api/" in url
    sent = {"json" if is_api else "data": given} if method != "GET" else {}
    begun, status = time.monotonic(), 599
    try:
        answer = session.request(
            method, url, timeout=PATIENCE_SECONDS, allow_redirects=False, **sent
        )
        status = answer.status_code
    except requests.RequestException as error:
        words = f"{words} {type(error).__name__}"
    return Visit(f"{words} {status}", status, time.monotonic() - begun)
