"""Redis dies, forgets, hangs, or was never there."""

import time
from random import Random

from tests.drills import outcome, walk
from tests.drills.load import Load, between
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal, frozen

HEARD_SECONDS = 15.0  # after Redis is back
FIRST_SECONDS = 3.0  # of a hang, in which each process finds out
AT_FIRST_MS, AFTER_MS = 1500.0, 200.0


def broker_killed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Redis dies with all bells in it, and comes back empty."""
    found, took = Outcome(), []
    url = portal.start_web()
    portal.start_worker()
    load = Load([url], rng, pause=0.5, threads=2)
    outcome.begin(portal, load)
    with load:
        for _ in range(3 if short else 12):
            portal.valkey.kill()
            portal.pause(rng.uniform(0.2, 4))
            portal.valkey.restart()
            took.append(portal.wait(portal.hears_bells, "a bell is heard", seconds=60))
    recovery = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    found.note(
        kills=len(took), heard_seconds=[round(one, 1) for one in took], recovery_seconds=recovery
    )
    words = f"bells are heard again within {HEARD_SECONDS:.0f} s"
    found.promise(holds=max(took) <= HEARD_SECONDS, words=words)
    found.count(portal, load)
    return found


def broker_flushed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Redis forgets all bells, and where they go, while many wait and some are being checked."""
    found, flushes = Outcome(), 3
    url = portal.start_web()
    load = Load([url], rng)
    load.ask_many(60 if short else 500)
    waited = outcome.waiting(portal)
    portal.flush()  # now nobody knows of them but the database
    portal.start_worker()
    portal.wait(lambda: outcome.checked(portal), "a first check")
    for _ in range(flushes):
        portal.flush()
        load.ask_many(2)
        portal.pause(rng.uniform(0.2, 2))
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    found.note(waited=waited, flushes=flushes + 1, recovery_seconds=took)
    found.promise(holds=waited >= (60 if short else 500), words="all of them waited")
    found.count(portal, load)
    return found


def broker_hangs(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Redis takes connections and answers nobody."""
    found = Outcome()
    url = portal.start_web()
    portal.start_worker()
    load = Load([url], rng, pause=0.5)
    outcome.begin(portal, load)
    with load:
        calm = time.monotonic()
        portal.pause(5)
        with frozen([portal.valkey.process.pid]):
            stopped = time.monotonic()
            portal.pause(12 if short else 60)
            goes_on = time.monotonic()
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    spans = {
        "before": (calm, stopped), "at_first": (stopped, stopped + FIRST_SECONDS),
        "after": (stopped + FIRST_SECONDS, goes_on),
    }  # fmt: skip
    p99 = {name: between(load.answers, *span)["p99_ms"] for name, span in spans.items()}
    found.note(recovery_seconds=took, **{f"p99_ms_{name}": ms for name, ms in p99.items()})
    busy = p99["before"]  # a machine with other work is slow while all is well, too
    found.promise(holds=p99["at_first"] <= AT_FIRST_MS + busy, words="p99 is within 1.5 s at first")
    found.promise(holds=p99["after"] <= AFTER_MS + busy, words="p99 is within 200 ms afterwards")
    found.count(portal, load)
    return found


def no_broker(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Redis was never there: every address is asked by everybody, and checks go on by sweep."""
    found = Outcome()
    portal.valkey.kill()
    url = portal.start_web(DEMO="true")  # agents without a second factor
    portal.start_worker()
    load = Load([url], rng, pause=0.5, threads=2)
    with load:
        visits = walk.visit(url, rows=1 if short else 9)
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked by sweep")
    failed = [visit.words for visit in visits if visit.status >= 500]
    slowest = max(visits, key=lambda visit: visit.seconds)
    found.note(
        visits=len(visits), failed=failed[:10], slowest=slowest.words,
        slowest_seconds=slowest.seconds, recovery_seconds=took,
    )  # fmt: skip
    found.promise(holds=not failed, words=f"every address answers: {failed[:3]}")
    by_sweep = portal.says("checks", "checking what waits without one")
    found.promise(holds=by_sweep, words="the worker checked by its sweep")
    found.count(portal, load)
    return found
