"""Minutes of faults at random under load."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from support import audit
from tests.drills import outcome
from tests.drills.load import Load
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal, frozen, tree

SECONDS, SHORT_SECONDS = 300.0, 20.0
FEWEST = 4  # faults, however slow the machine is
PAUSES = (0.5, 4.0)  # between two faults
AWAY = (0.2, 3.0)  # how long a server stays away
WEBS = ("web-1", "web-2")
CHECKS = ("checks-1", "checks-2")


@dataclass
class Faults:
    """What may break, one at a time, and how often each did."""

    portal: Portal
    rng: Random
    made: Counter[str] = field(default_factory=Counter)

    def make_one(self) -> None:
        """Break something at random, and heal it."""
        kinds: list[Callable[[], object]] = [
            self.worker_child_killed, self.worker_killed, self.worker_stopped,
            self.web_child_killed, self.web_killed, self.broker_killed, self.broker_flushed,
            self.broker_stopped, self.database_killed,
        ]  # fmt: skip
        kind = self.rng.choice(kinds)
        self.made[kind.__name__] += 1
        kind()

    def worker_child_killed(self) -> None:
        self.portal.kill_child(self.rng.choice(CHECKS))

    def worker_killed(self) -> None:
        self._kill(self.rng.choice(CHECKS))

    def worker_stopped(self) -> None:
        self._hold(self.portal.running[self.rng.choice(CHECKS)].pid)

    def web_child_killed(self) -> None:
        self.portal.kill_child(self.rng.choice(WEBS))

    def web_killed(self) -> None:
        self._kill(self.rng.choice(WEBS))

    def broker_killed(self) -> None:
        self.portal.valkey.kill()
        self._stay_away()
        self.portal.valkey.restart()

    def broker_flushed(self) -> None:
        self.portal.flush()

    def broker_stopped(self) -> None:
        self._hold(self.portal.valkey.process.pid)

    def database_killed(self) -> None:
        self.portal.kill_postgres()
        self._stay_away()
        self.portal.start_postgres()

    def _kill(self, name: str) -> None:
        self.portal.kill(name)
        self._stay_away()
        self.portal.start_again(name)

    def _hold(self, pid: int) -> None:
        with frozen(tree(pid)):
            self._stay_away()

    def _stay_away(self) -> None:
        self.portal.pause(self.rng.uniform(*AWAY))


def kill_storm(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Workers, their children, web processes, Redis and Postgres, at random, while people ask."""
    found, faults = Outcome(), Faults(portal, rng)
    urls = [portal.start_web(name) for name in WEBS]
    for name in (*CHECKS, "mail", "interactive"):
        portal.start_worker(name)
    portal.start_beat()
    load = Load(urls, rng, pause=2.0 if short else 0.5, reads=True)
    with load:
        portal.wait(lambda: outcome.checked(portal), "a first check")
        until = time.monotonic() + (SHORT_SECONDS if short else SECONDS)
        while time.monotonic() < until or faults.made.total() < FEWEST:
            faults.make_one()
            portal.pause(rng.uniform(*PAUSES))
        portal.keep_running()
    left = outcome.waiting(portal)
    if short:
        outcome.end_leases(portal)
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked", seconds=900)
    found.note(faults=dict(sorted(faults.made.items())), made=faults.made.total(), left=left,
               recovery_seconds=took)  # fmt: skip
    found.count(portal, load, unavailable=True)
    found.promise(holds=audit.verify().broken is None, words="the audit trail verifies")
    return found
