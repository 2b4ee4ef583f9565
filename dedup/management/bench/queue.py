"""How quickly the review desk answers, with few and with very many open flags.

Through Django's own request handling, signed in as an agent and as an admin, in a database of its
own, which is dropped afterwards. Questions, flags and answers are made up.
"""

import random
import re
import secrets
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dedup.management.scratch import milliseconds, scratch_database
from dedup.models import Flag, Release
from support import permissions
from support.models import Answer, Merge, Product, Question, User

SIZES = (100, 10_000, 100_000)
WORDS = [
    "lamp", "door", "invoice", "password", "export", "colour", "update", "tariff", "battery",
    "switch", "cable", "parcel",
]  # fmt: skip
BLOCK = 5_000
HEADERS = {"X-Desk": "1"}
FILES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
PLAIN = {
    "SECOND_FACTOR": False, "SECURE_SSL_REDIRECT": False, "STORAGES": settings.STORAGES | FILES,
}  # fmt: skip


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench queue`."""
    parser.add_argument("--flags", type=int, nargs="+", default=list(SIZES), help="open flags")
    parser.add_argument("--cards", type=int, default=60, help="decided for each size")


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the table that shows them."""
    settings.SECRET_KEY = secrets.token_hex()  # there may be none, and no session outlives this
    found: dict[str, Any] = {"sizes": {}}
    with scratch_database(), override_settings(**PLAIN):
        permissions.create_roles()
        for size in sorted(options["flags"]):
            console.print(f"filling up to {size} open flags")
            fill(size)
            found["sizes"][size] = measure(min(options["cards"], size // 2), console)
    return found, [table(found)]


def fill(size: int) -> None:
    """Open flags up to `size`, each of two questions of its own with an answer on the older."""
    rng = random.Random(size)  # noqa: S311 - no secret
    product, _ = Product.objects.get_or_create(slug="lamp", defaults={"name": "Lamp"})
    asker, _ = User.objects.get_or_create(username="asker")
    release, _ = Release.objects.get_or_create(
        name="bench",
        defaults={
            "fingerprint": "bench", "embedding_fingerprint": "bench", "threshold": 0.2,
            "suggestion_floor": 0.05, "sure_threshold": 0.5, "is_active": True,
        },
    )  # fmt: skip
    missing = size - Flag.objects.open().count()
    now = timezone.now()
    for begun in range(0, missing, BLOCK):
        count = min(BLOCK, missing - begun)
        asked = Question.objects.bulk_create(
            Question(
                product=product, asked_by=asker, title=title(rng), body=title(rng) + ".",
                audience="public", asked_at=now - timedelta(minutes=rng.randrange(10_000)),
            )
            for _ in range(2 * count)
        )  # fmt: skip
        older, newer = asked[:count], asked[count:]
        Answer.objects.bulk_create(
            Answer(question=one, written_by=asker, body=title(rng)) for one in older
        )
        Flag.objects.bulk_create(
            Flag(
                older=one, newer=other, older_hash="", newer_hash="", release=release,
                probability=0.2 + 0.8 * rng.random(),
            )
            for one, other in zip(older, newer, strict=True)
        )  # fmt: skip
    with connection.cursor() as cursor:
        for model in (Question, Answer, Flag):
            cursor.execute(f"VACUUM ANALYZE {model._meta.db_table}")


def title(rng: random.Random) -> str:
    """A few words."""
    return " ".join(rng.sample(WORDS, 6))


def person(role: str, name: str = "") -> Client:
    """A browser of somebody with this role; one of each name."""
    user, _ = User.objects.get_or_create(username=f"bench-{name or role}")
    user.groups.add(Group.objects.get(name=role))
    client = Client(SERVER_NAME="localhost")
    client.force_login(user)
    return client


def measure(cards: int, console: Console) -> dict[str, Any]:
    """Time of each request in milliseconds, and decisions a second of one person."""
    agent, admin = person(permissions.AGENT), person(permissions.ADMIN)
    spent: dict[str, list[float]] = {"queue": [], "first card": [], "decide and next card": []}
    timed(spent, "queue", lambda: agent.get(reverse("review_queue")))
    begun = time.perf_counter()
    ahead: list[int] = []
    start = reverse("review_next")
    for _ in track(range(cards), "deciding", console=console, transient=True):
        if not ahead:
            shown = timed(spent, "first card", lambda: agent.get(start, follow=True))
            ahead = cards_of(shown)
        pk = ahead.pop(0)
        given = {"verdict": "dismissed", "held": ahead, "without": [pk]}
        ahead += cards_of(
            timed(
                spent, "decide and next card",
                lambda pk=pk, given=given: agent.post(  # type: ignore[misc]
                    reverse("review_decide", args=[pk]), given, headers=HEADERS
                ),
            )
        )  # fmt: skip
    spent |= merging(admin, min(cards, 30), console)
    return {
        "open": Flag.objects.open().count(),
        "decisions_per_second": cards / (time.perf_counter() - begun),
        "milliseconds": {name: milliseconds(values) for name, values in spent.items()},
    }


def merging(admin: Client, count: int, console: Console) -> dict[str, list[float]]:
    """An admin confirms, which merges, and takes each merge back."""
    spent: dict[str, list[float]] = {"merge": [], "unmerge": []}
    for flag in track(list(Flag.objects.open().order_by("pk")[:count]), "merging", console=console,
                      transient=True):  # fmt: skip
        versions = {f"version-{pk}": 1 for pk in flag.question_ids}
        given = {"verdict": "confirmed", "canonical": flag.older_id} | versions
        address = reverse("review_decide", args=[flag.pk])
        timed(
            spent, "merge",
            lambda a=address, g=given: admin.post(a, g, headers=HEADERS),  # type: ignore[misc]
        )  # fmt: skip
        edge = Merge.objects.in_force().get(duplicate=flag.newer_id)
        back = reverse("unmerge", args=[edge.pk])
        timed(spent, "unmerge", lambda b=back: admin.post(b))  # type: ignore[misc]
    return spent


def cards_of(answer: Any) -> list[int]:
    """Ids of the cards in an answer."""
    return [int(pk) for pk in re.findall(r'data-card="(\d+)"', answer.content.decode())]


def timed(spent: dict[str, list[float]], name: str, ask: Callable[[], Any]) -> Any:
    """Ask, note how long it took, return the answer. Raises RuntimeError where it was refused."""
    begun = time.perf_counter()
    answer = ask()
    spent[name].append(time.perf_counter() - begun)
    if answer.status_code >= 400:
        raise RuntimeError(f"{name}: {answer.status_code}")
    return answer


def table(found: dict[str, Any]) -> Table:
    """One line for each request, one pair of columns for each size."""
    sizes = list(found["sizes"])
    drawn = Table(title="Milliseconds at the server, p50 / p95")
    drawn.add_column("request")
    for size in sizes:
        drawn.add_column(f"{size:,} open", justify="right")
    for name in found["sizes"][sizes[0]]["milliseconds"]:
        rows = [found["sizes"][size]["milliseconds"][name] for size in sizes]
        drawn.add_row(name, *(f"{row['p50_ms']:.0f} / {row['p95_ms']:.0f}" for row in rows))
    each = [found["sizes"][size]["decisions_per_second"] for size in sizes]
    drawn.add_row("decisions a second", *(f"{value:.1f}" for value in each))
    return drawn
