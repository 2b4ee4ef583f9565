"""Goes the whole road on a running demo, through its API: ask, flag, confirm, merge, take back."""

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from django.db.models import Q
from django.utils import timezone

from dedup.management.demo import text
from dedup.models import Flag
from support.models import ApiToken, OutboxEntry, Question, User

PACE_SECONDS = 1.0  # between two questions, as on a busy day
CHECKED_WITHIN_SECONDS = 900.0
FLAGS_WANTED, FLAGS_BORNE, P95_SECONDS = 10, 2, 10.0


class CheckFailed(Exception):
    """The portal did not do what it promises; says what."""


@dataclass
class Report:
    """The figures of one run; its last line as JSON."""

    questions: int
    checked: int
    known_duplicates_flagged: int
    of: int
    near_misses_flagged: int
    of_near_misses: int
    submit_to_flag_seconds_p50: float
    submit_to_flag_seconds_p95: float
    merge_roundtrip_ok: bool
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether all that the demo promises came true."""
        return (
            self.checked == self.questions
            and self.known_duplicates_flagged >= FLAGS_WANTED
            and self.near_misses_flagged <= FLAGS_BORNE
            and self.submit_to_flag_seconds_p95 <= P95_SECONDS
            and self.merge_roundtrip_ok
        )

    def as_dict(self) -> dict[str, Any]:
        """For the JSON line: each count beside what it is out of."""
        read = asdict(self)
        flagged = {"flagged": read.pop("near_misses_flagged"), "of": read.pop("of_near_misses")}
        return {**read, "near_misses_flagged": flagged["flagged"], "near_misses_of": flagged["of"]}


@dataclass(frozen=True)
class Client:
    """A person's programs: requests to the API with a token."""

    url: str
    secret: str

    @classmethod
    def of(cls, username: str, url: str) -> "Client":
        """A client for a demo person, with a token issued for it."""
        person = User.objects.get(username=username)
        return cls(url, ApiToken.objects.issue(user=person, name="demo check")[1])

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """GET, or POST where there is a body. Raises urllib.error.HTTPError."""
        request = urllib.request.Request(  # noqa: S310 - our own http address
            f"{self.url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            read: dict[str, Any] = json.load(response)
            return read


def check(url: str, *, say: Callable[[str], object]) -> Report:
    """Submit the twenty arrivals and follow them to the end. Raises CheckFailed."""
    begun = time.monotonic()
    await_checked(say=say)
    submitted = _submit(url, say=say)
    await_checked(say=say)
    flags = {key: _flags_of(pk) for key, pk in submitted.items()}
    waits = [
        (flag.flagged_at - Question.objects.get(pk=submitted[key]).asked_at).total_seconds()
        for key, found in flags.items()
        for flag in found[:1]
    ]
    rows = {row["title"]: row for row in text.arrivals()}
    known = {key: row for key, row in rows.items() if row["kind"] == "duplicate"}
    hits = {key: hit for key, row in known.items() if (hit := _hit(flags[key], row))}
    wrong = [key for key in rows if key not in known and flags[key]]
    for key in wrong:
        say(f"  flagged although it differs: {key}")
    for key in known:
        if key not in hits:
            say(f"  not flagged: {key}")
    entries = OutboxEntry.objects
    return Report(
        questions=Question.objects.count(),
        checked=entries.filter(settled_at__isnull=False).count(),
        known_duplicates_flagged=len(hits),
        of=len(known),
        near_misses_flagged=len(wrong),
        of_near_misses=len(rows) - len(known),
        submit_to_flag_seconds_p50=round(float(np.quantile(waits or [0], 0.5)), 2),
        submit_to_flag_seconds_p95=round(float(np.quantile(waits or [0], 0.95)), 2),
        merge_roundtrip_ok=bool(hits) and _roundtrip(url, next(iter(hits.values())), say=say),
        seconds=round(time.monotonic() - begun, 1),
    )


def await_checked(*, say: Callable[[str], object]) -> None:
    """Return when no question waits any more. Raises CheckFailed."""
    deadline, said = time.monotonic() + CHECKED_WITHIN_SECONDS, time.monotonic()
    while waiting := OutboxEntry.objects.waiting().count():
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"{waiting} questions still wait after {CHECKED_WITHIN_SECONDS:.0f} s."
            )
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"  {waiting} questions wait for their check")
        time.sleep(0.25)


def _submit(url: str, *, say: Callable[[str], object]) -> dict[str, int]:
    """Ask the twenty questions, each as its own asker; ids by title."""
    submitted = {}
    say("Asking twenty new questions")
    for row in text.arrivals():
        given = {key: row[key] for key in ("product", "title", "body")}
        submitted[row["title"]] = Client.of(row["asked_by"], url).call("questions/", given)["id"]
        time.sleep(PACE_SECONDS)
    return submitted


def _flags_of(question_id: int) -> list[Flag]:
    pair = Q(older=question_id) | Q(newer=question_id)
    found = Flag.objects.open().flagged().filter(pair, flagged_at__lte=timezone.now())
    return list(found.select_related("older", "newer").order_by("-probability"))


def _hit(flags: list[Flag], row: dict[str, Any]) -> Flag | None:
    """The flag that names a question of the cluster that the arrival asks again."""
    wanted = {text.SOURCE + key for key in text.cluster_of(row["of"])}
    return next((f for f in flags if wanted & {f.older.source, f.newer.source}), None)


def _roundtrip(url: str, flag: Flag, *, say: Callable[[str], object]) -> bool:
    """Confirm as an admin, see the merge from outside, take it back, see the question again."""
    say("Confirming one, merging, taking it back")
    admin = Client.of("admin", url)
    before = [admin.call(f"questions/{pk}/") for pk in (flag.older_id, flag.newer_id)]
    answers = [admin.call(f"questions/{pk}/answers/") for pk in (flag.older_id, flag.newer_id)]
    said = admin.call(
        f"flags/{flag.pk}/reviews/", {"verdict": "confirmed", "canonical": flag.older_id}
    )
    merged = admin.call(f"questions/{flag.newer_id}/")["canonical"]
    admin.call(f"merges/{said['merge']}/undo/", {})
    after = [admin.call(f"questions/{pk}/") for pk in (flag.older_id, flag.newer_id)]
    again = [admin.call(f"questions/{pk}/answers/") for pk in (flag.older_id, flag.newer_id)]
    return bool(merged) and (before, answers) == (after, again)
