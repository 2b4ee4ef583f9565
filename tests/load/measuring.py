"""People are sent to a portal; what they met, and what its processes held meanwhile."""

import argparse
import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from django.core.management import call_command

from dedup.management.demo import text
from support.models import Question
from support.permissions import AGENT, CUSTOMER
from tests.drills import outcome
from tests.drills.load import tokens_of
from tests.drills.portal import Portal, children_of

FILE = Path(__file__).with_name("people.py")
RATES = ("ask", "read", "suggest", "decide")  # a second, as given
PROMISED_MS = {"ask": 150.0, "suggest": 300.0}  # 95 of 100 within
LOOK_SECONDS = 30.0  # counting the memory of a process takes it some milliseconds
MEGABYTE = 2**20
HISTORY = "people_stats_history.csv"  # so locust names it
WORKERS = ("checks", "interactive", "mail")


def measure(portal: Portal, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of one load."""
    people = folder / "people.json"
    people.write_text(json.dumps(populate(given)), encoding="utf-8")
    url = portal.start_web(DEDUP_SHORTLIST="50", PROXY_COUNT="1")
    for name in WORKERS:
        portal.start_worker(name, DEDUP_SHORTLIST="50", DEDUP_NICENESS="10")
    portal.start_beat()
    token = json.loads(people.read_text(encoding="utf-8"))["customers"][0]
    portal.wait(lambda: suggests(url, token), "the worker for suggestions")
    processes = Processes(portal)
    with processes:
        stats = send_people(url, people, given, folder)
    found = figures(stats, given.seconds)
    for name, medians in p95_over_time(folder / HISTORY).items():
        found[name] |= {"p95_ms_tenths": medians}
    found |= {"memory_mb": processes.memory(), "processors": processes.busy(),
              "seconds": given.seconds, "seed": given.seed,
              "waiting": outcome.waiting(portal)}  # fmt: skip
    late = [name for name, most in PROMISED_MS.items() if found[name]["p95_ms"] > most]
    failed = [name for name in stats_names(found) if found[name]["failures"]]
    return found | {"broken": [f"late: {n}" for n in late] + [f"failures: {n}" for n in failed]}


def populate(given: argparse.Namespace) -> dict[str, Any]:
    """People with tokens, questions that were asked before, and what will be asked."""
    call_command("seed_demo", verbosity=0)
    return {
        "seed": given.seed,
        "rates": {name: getattr(given, name) for name in RATES},
        "customers": tokens_of(CUSTOMER, 20),
        "agents": tokens_of(AGENT, 2),
        "titles": [row["title"] for row in text.seed()["questions"]],
        "questions": list(Question.objects.filter(audience="public").values_list("pk", flat=True)),
    }


def suggests(url: str, token: str) -> bool:
    """Whether a worker answers who writes a question, so that its networks are loaded."""
    given = {"title": "Is anybody there already?"}
    headers = {"Authorization": f"Bearer {token}"}
    got = requests.post(f"{url}/api/v1/similar/", json=given, headers=headers, timeout=10)
    return bool(got.ok and got.json()["by_meaning"])


def send_people(
    url: str, people: Path, given: argparse.Namespace, folder: Path
) -> list[dict[str, Any]]:
    """Locust's figures of each kind of request; it leaves those of each second in `folder`."""
    argv = [
        sys.executable, "-m", "locust", "-f", str(FILE), "--headless",
        "--host", url, "--users", str(sum(getattr(given, name) for name in RATES)),
        "--spawn-rate", "10", "--run-time", f"{given.seconds}s", "--json",
        "--csv", str(folder / "people"), "--csv-full-history", "--only-summary",
        "--stop-timeout", "10", "--loglevel", "ERROR",
    ]  # fmt: skip
    ran = subprocess.run(
        argv, env=os.environ | {"LOAD_PEOPLE": str(people)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if not ran.stdout.strip():
        raise RuntimeError(ran.stderr[-3000:])
    return list(json.loads(ran.stdout))


def figures(stats: list[dict[str, Any]], seconds: int) -> dict[str, Any]:
    """By name of a request: how many, how many a second, milliseconds and failures."""
    return {
        row["name"]: {
            "requests": row["num_requests"],
            "per_second": round(row["num_requests"] / seconds, 1),
            "failures": row["num_failures"],
            **percentiles(row["response_times"]),
        }
        for row in stats
    }


def percentiles(histogram: dict[str, int]) -> dict[str, float]:
    """Locust counts requests by their milliseconds, rounded to two digits."""
    took = np.repeat([float(each) for each in histogram], list(histogram.values()))
    if not took.size:
        return {}
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99)}


def p95_over_time(history: Path) -> dict[str, list[float]]:
    """Of each kind of request: within how many milliseconds 95 of 100 of the last ten seconds were
    answered, the median of that in each tenth of the load."""
    seen: dict[str, list[float]] = {}
    with history.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            if row["Name"] != "Aggregated" and row["95%"] not in {"", "N/A"}:
                seen.setdefault(row["Name"], []).append(float(row["95%"]))
    return {name: tenths(values) for name, values in seen.items()}


def tenths(values: list[float]) -> list[float]:
    """The median of each tenth of them, one after the other."""
    parts = np.array_split(values, min(10, len(values)))
    return [round(float(np.median(part)), 1) for part in parts]


def stats_names(found: dict[str, Any]) -> list[str]:
    """Those of requests."""
    return [name for name, row in found.items() if isinstance(row, dict) and "failures" in row]


class Processes:
    """What each process of a portal and its children hold and use, looked at again and again."""

    def __init__(self, portal: Portal) -> None:
        self.portal, self.seen = portal, dict[str, list[float]]()
        self.used = dict[str, list[tuple[float, float]]]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> "Processes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        servers = {name: getattr(self.portal, name).process for name in ("postgres", "valkey")}
        while True:
            for name, process in (self.portal.running | servers).items():
                self.seen.setdefault(name, []).append(held_by(process.pid))
                now = (time.monotonic(), used_by(process.pid))
                self.used.setdefault(name, []).append(now)
            if self._over.wait(LOOK_SECONDS):
                return

    def memory(self) -> dict[str, dict[str, Any]]:
        """Of each: megabytes in each tenth of the time, and at most."""
        return {
            name: {"tenths": tenths(values), "most": round(max(values), 1)}
            for name, values in self.seen.items()
        }

    def busy(self) -> dict[str, float]:
        """How many processors each kept busy; of what was looked at once that cannot be told."""
        told = {}
        for name, values in self.used.items():
            (begun, before), (ended, after) = values[0], values[-1]
            if ended > begun:
                told[name] = round((after - before) / (ended - begun), 2)
        return told


def used_by(pid: int) -> float:
    """Seconds of a processor that a process, its children and those that ended have had."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    own = sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(used_by(child) for child in children_of(pid))


def held_by(pid: int) -> float:
    """Megabytes of a process and all below it, what they share counted in parts."""
    own = 0.0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                own = float(line.split()[1]) * 1024 / MEGABYTE
    except OSError:
        return 0.0
    return own + sum(held_by(child) for child in children_of(pid))
