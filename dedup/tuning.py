"""What was measured on this machine about feeding the networks. Files only; see `dedup.idle`."""

import json
import logging
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from dedup import releases

log = logging.getLogger(__name__)

FILE = "tuning.json"
MOST_KEPT = 50
FRESH = timedelta(days=7)  # then it is measured again: the machine may have other neighbours


@dataclass(frozen=True)
class Tuned:
    """How the networks are fed here; `ratio` is how long it takes beside the usual way, 1."""

    tokens: int
    threads: int
    ratio: float
    measured_at: str

    @property
    def is_fresh(self) -> bool:
        return timezone.now() - datetime.fromisoformat(self.measured_at) < FRESH


def current() -> Tuned | None:
    """What was measured of the release in service on this machine; None where nothing was."""
    try:
        return known(releases.active().fingerprint)
    except releases.NoRelease:
        return None


def known(fingerprint: str) -> Tuned | None:
    """What was measured of a release on this machine, with as many threads as may be used."""
    try:
        found = Tuned(**_all()[_key(fingerprint)])
        datetime.fromisoformat(found.measured_at)
    except (KeyError, TypeError, ValueError):
        return None
    return found if 1 <= found.threads <= settings.DEDUP_THREADS and found.tokens > 0 else None


def keep(fingerprint: str, *, tokens: int, threads: int, ratio: float, now: datetime) -> None:
    """Remember it for this machine. A folder that cannot be written to is no reason to stop."""
    rows = _all() | {_key(fingerprint): asdict(Tuned(tokens, threads, ratio, now.isoformat()))}
    newest = sorted(rows, key=lambda key: str(rows[key].get("measured_at")))[-MOST_KEPT:]
    file = folder() / FILE
    part = file.with_suffix(f".{platform.node()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({key: rows[key] for key in newest}, indent=1), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        log.warning("What was measured is not kept: %s", error)


def folder() -> Path:
    """Where this machine's measurements lie."""
    return Path(settings.LOCAL_FOLDER)


def _all() -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    rows = found.items() if isinstance(found, dict) else ()
    return {key: row for key, row in rows if isinstance(row, dict)}


def _key(fingerprint: str) -> str:
    """All that a measurement holds for."""
    made_of = (platform.node(), processor(), metadata.version("torch"), settings.DEDUP_THREADS)
    return " | ".join(map(str, (*made_of, fingerprint[:16])))


@cache
def processor() -> str:
    """What the machine calls its processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
