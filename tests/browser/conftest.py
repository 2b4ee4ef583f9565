"""A browser that watches: errors, breaches of the content policy, foreign hosts fail the test."""

import os
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client

from dedup.management.commands.screenshots import CHROMIUM, browser

PASSWORD = "correct horse battery"
NO_CHROMIUM = "The browser tests need Debian's Chromium: apt-get install chromium"

LISTEN = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`content policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests; beside Playwright's loop Django may still read rows."""
    if not CHROMIUM.exists():
        pytest.skip(NO_CHROMIUM)
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with browser() as started:
        yield started


class Visitor:
    """A person's browser: its pages, and what went wrong on them."""

    def __init__(self, context, base_url):
        self.context, self.base_url = context, base_url
        self.wrong = []
        self.files = {}
        self.expected = set()  # statuses of pages that are to be refused
        context.add_init_script(LISTEN)
        context.route(lambda url: not url.startswith(base_url), self._refuse_foreign)
        self.page = self._watch(context.new_page())

    def _watch(self, page):
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.wrong.append(f"{page.url}: {error}"))
        page.on("console", lambda message: self._note(page, message))
        page.on("response", self._keep)
        return page

    def _note(self, page, message):
        is_expected = any(f"status of {status}" in message.text for status in self.expected)
        if message.type in {"error", "warning"} and not is_expected:
            self.wrong.append(f"{page.url}: {message.text}")

    def _keep(self, response):
        if response.request.resource_type in {"script", "stylesheet"}:
            self.files[urlsplit(response.url).path] = response

    def _refuse_foreign(self, route):
        if not route.request.url.startswith(("data:", "about:", "blob:")):
            self.wrong.append(f"asked another host: {route.request.url}")
        route.abort()

    def open(self, path):
        return self.page.goto(self.base_url + path)

    def sign_in(self, person):
        """On the page that everybody uses."""
        self.open("/accounts/login/")
        self.page.fill("input[name=login]", person.username)
        self.page.fill("input[name=password]", PASSWORD)
        self.page.click("main button[type=submit]")
        self.page.wait_for_selector(".menu")

    def leave(self):
        """Close the browser once nothing is under way: the rows are about to go."""
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate("navigator.sendBeacon = () => true")
        self.context.close()

    def path(self):
        return urlsplit(self.page.url).path


@pytest.fixture
def visit(chromium, live_server):
    """Open a browser for somebody, signed in already where a person is given."""
    visitors = []

    def visit(person=None, **options):
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        visitor = Visitor(context, live_server.url)
        if person:
            client = Client()  # one for each: signing somebody else in ends the first one's session
            client.force_login(person)
            cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}]
            )
        visitors.append(visitor)
        return visitor

    yield visit

    wrong = [what for visitor in visitors for what in visitor.wrong]
    for visitor in visitors:
        visitor.leave()
    assert wrong == []
