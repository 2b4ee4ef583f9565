import os
import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dedup.management.demo.seeding import PASSWORD

try:
    from playwright.sync_api import Browser, Error, Page, ViewportSize, sync_playwright
except ImportError:  # it comes with the extra "test" only
    sync_playwright = None  # type: ignore[assignment]

CHROMIUM = Path("/usr/bin/chromium")
SIZES = {"wide": (1280, 800), "phone": (390, 844)}
DRAFT = "How do I correct an invoice that I have sent already?"

Step = Callable[[Page, str], None]


def arguments() -> list[str]:
    """How Chromium is started: quiet on the network, and without its sandbox where root runs it."""
    quiet = [
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ]
    return [*quiet, "--no-sandbox"] if os.geteuid() == 0 else quiet


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments())
        try:
            yield started
        finally:
            started.close()


def sign_in(page: Page, base_url: str, name: str, password: str = PASSWORD) -> None:
    """Sign in on the page that everybody uses."""
    page.goto(f"{base_url}/accounts/login/")
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", password)
    page.click("main button[type=submit]")
    page.wait_for_selector(".menu")


def home(page: Page, base_url: str) -> None:
    page.goto(base_url)


def search(page: Page, base_url: str) -> None:
    page.goto(f"{base_url}/?q=correct+a+wrong+amount+on+an+invoice")


def ask(page: Page, base_url: str) -> None:
    page.goto(f"{base_url}/ask/")
    page.fill("#id_title", DRAFT)
    page.dispatch_event("#id_title", "input")
    page.wait_for_selector("#similar-found li")
    page.locator("#similar-found summary").first.click()


def question(page: Page, base_url: str) -> None:
    """A thread with a duplicate in it, as who came from the duplicate's address sees it."""
    page.goto(f"{base_url}/questions/{merge_in_force(page, base_url)['duplicate']}/")


def queue(page: Page, base_url: str) -> None:
    page.goto(f"{base_url}/review/")


def opened(page: Page, base_url: str) -> None:
    """The likeliest pair that waits; the next one may by chance be one without its score. Raises
    CommandError where none waits."""
    queue(page, base_url)
    pairs = page.locator("a[data-row]")
    if not pairs.count():
        raise CommandError("No pair waits for review there: let the checks end first.")
    page.goto(f"{base_url}{pairs.first.get_attribute('href')}")


def later(page: Page, base_url: str) -> None:
    """The card with a menu open."""
    opened(page, base_url)
    page.locator("[data-action=snooze]").click()


def guideline(page: Page, base_url: str) -> None:
    opened(page, base_url)
    page.locator("[data-action=guideline]").click()


def keys(page: Page, base_url: str) -> None:
    opened(page, base_url)
    page.locator("[data-action=keys]").click()


def many(page: Page, base_url: str) -> None:
    """The preview of three decided together."""
    queue(page, base_url)
    for field in page.locator("input[name=flag]").all()[:3]:
        field.check()
    page.get_by_role("button", name="Duplicates …", exact=True).click()


def to_merge(page: Page, base_url: str) -> None:
    page.goto(f"{base_url}/manage/merges/")


def merge(page: Page, base_url: str) -> None:
    """The preview for the likeliest pair that waits."""
    opened(page, base_url)
    versions = page.locator(".decide input[name^=version-]").all()
    ids = [int(re.sub(r"\D", "", field.get_attribute("name") or "")) for field in versions]
    stays = int(page.input_value("input[name=canonical]:checked"))
    goes = next(pk for pk in ids if pk != stays)
    page.goto(f"{base_url}/manage/merge/{goes}/{stays}/")


def unmerge(page: Page, base_url: str) -> None:
    page.goto(f"{base_url}/manage/unmerge/{merge_in_force(page, base_url)['id']}/")


def merge_in_force(page: Page, base_url: str) -> dict[str, Any]:
    """The newest merge that was not taken back. Raises CommandError where there is none."""
    answer = page.request.get(f"{base_url}/api/v1/merges/").json()
    standing = [row for row in answer["results"] if not row["undone_at"]]
    if not standing:
        raise CommandError("Nothing is merged there: is this a demo?")
    return dict(standing[0])


PICTURES: list[tuple[str, str, Step]] = [
    ("home", "customer", home),
    ("search", "customer", search),
    ("ask", "customer", ask),
    ("question", "admin", question),
    ("queue", "agent", queue),
    ("card", "agent", opened),
    ("later", "agent", later),
    ("guideline", "agent", guideline),
    ("keys", "agent", keys),
    ("many", "agent", many),
    ("to-merge", "admin", to_merge),
    ("merge", "admin", merge),
    ("unmerge", "admin", unmerge),
]


class Command(BaseCommand):
    help = "Take pictures of a running demo: wide and narrow, light and dark."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--out", type=Path, required=True, help="the folder they go to")
        parser.add_argument("--base-url", default="http://127.0.0.1:8000")
        parser.add_argument("--only", nargs="*", help="names, such as: home card")

    def handle(self, *args: Any, **options: Any) -> None:
        if sync_playwright is None:
            raise CommandError("Playwright is missing. It comes with: pip install -e '.[test]'")
        if not CHROMIUM.exists():
            raise CommandError(f"{CHROMIUM} is missing. On Debian: apt-get install chromium")
        out, base_url = options["out"], options["base_url"].rstrip("/")
        out.mkdir(parents=True, exist_ok=True)
        wanted = [row for row in PICTURES if not options["only"] or row[0] in options["only"]]
        try:
            with browser() as chromium:
                self._take_all(chromium, base_url, out, wanted)
        except Error as error:
            raise CommandError(f"Chromium could not show {base_url}: {error.message}") from error

    def _take_all(
        self, chromium: Browser, base_url: str, out: Path, wanted: list[tuple[str, str, Step]]
    ) -> None:
        sessions = {}
        for role in {role for _, role, _ in wanted}:
            with chromium.new_context() as context:
                sign_in(context.new_page(), base_url, role)
                sessions[role] = context.storage_state()
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                for name, role, step in wanted:
                    with chromium.new_context(
                        storage_state=sessions[role],
                        viewport=ViewportSize(width=width, height=height),
                        color_scheme="dark" if scheme == "dark" else "light",
                        reduced_motion="reduce",
                    ) as context:
                        page = context.new_page()
                        step(page, base_url)
                        # As tall as the page: a bar that sticks to the bottom stays in its place.
                        tall = page.evaluate("document.documentElement.scrollHeight")
                        page.set_viewport_size(ViewportSize(width=width, height=tall))
                        file = out / f"{name}-{size}-{scheme}.png"
                        page.screenshot(path=file)
                        self.stdout.write(str(file))
