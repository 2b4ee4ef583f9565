"""Whether the check for duplicates is well, by the bounds at which people are told (alerts)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from dedup import alerts, watching
from dedup.models import Release
from support import outbox
from support.models import OutboxEntry


@dataclass(frozen=True)
class Part:
    """A figure beside the bound above which it is not well; None: there is nothing to measure."""

    value: float | None
    bound: float
    is_well: bool


@dataclass(frozen=True)
class Health:
    """How the check fares. Numbers and names of ours: nothing that anybody wrote."""

    parts: dict[str, Part]
    workers: dict[str, float]  # by queue: seconds since one that serves it gave a sign of life
    release: str

    @property
    def is_well(self) -> bool:
        return all(part.is_well for part in self.parts.values())

    def told(self, *, with_figures: bool) -> dict[str, Any]:
        """As programs read it; figures only for who may see them."""
        said: dict[str, Any] = {"status": "ok" if self.is_well else "failing"}
        said |= {name: "ok" if part.is_well else "failing" for name, part in self.parts.items()}
        if with_figures:
            said["figures"] = {
                name: {"value": part.value, "bound": part.bound}
                for name, part in self.parts.items()
            } | {"seconds_since_workers": self.workers, "release": self.release}
        return said


def look(*, now: datetime) -> Health:
    """How the check fares just now."""
    oldest = outbox.seconds_behind(now)
    quarantined = OutboxEntry.objects.quarantined().count()
    seen = next(iter(alerts.no_worker(now)), None)
    release = Release.objects.filter(is_active=True).first()
    parts = {
        "oldest_seconds": _part(oldest, settings.ALERT_UNCHECKED_SECONDS),
        "quarantined": _part(quarantined, 0),
        "worker_seconds": _part(seen.value if seen else None, settings.ALERT_WORKER_SECONDS),
        "release": Part(float(release is not None), 1, release is not None),
    }
    return Health(parts, _workers(now), release.name if release else "")


def _part(value: float | None, bound: float) -> Part:
    return Part(value, bound, value is not None and value <= bound)


def _workers(now: datetime) -> dict[str, float]:
    found: dict[str, float] = {}
    for worker in watching.workers():  # those seen last come first
        for queue in worker.queues:
            found.setdefault(queue, max(0.0, (now - worker.seen_at).total_seconds()))
    return found
