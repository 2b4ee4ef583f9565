"""Workers that die."""

from random import Random

from django.conf import settings

from tests.drills import outcome
from tests.drills.load import Load
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal


def child_killed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """The process that reads questions is killed again and again, and the worker replaces it."""
    found, kills = Outcome(), 0
    url = portal.start_web()
    portal.start_worker()
    load = Load([url], rng, pause=0.3)
    with load:
        portal.wait(lambda: outcome.checked(portal), "a first check")
        for _ in range(4 if short else 25):
            kills += portal.kill_child("checks")
            portal.pause(2)
    if short:
        outcome.end_leases(portal)
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    found.note(kills=kills, recovery_seconds=took)
    found.promise(holds=kills > 0, words="a child was there to be killed")
    found.count(portal, load)
    return found


def worker_killed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """A worker dies with all its children while it holds questions; another goes on."""
    found = Outcome()
    url = portal.start_web()
    load = Load([url], rng)
    load.ask_many(40 if short else 150)
    portal.start_worker()
    portal.wait(lambda: outcome.held(portal) and outcome.checked(portal), "a batch in progress")
    portal.kill("checks")
    held = outcome.held(portal)
    if short:
        outcome.end_leases(portal)
    portal.start_worker("checks-2")
    took = portal.wait(lambda: not set(held) & set(outcome.held(portal)), "taken up again")
    portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    found.note(held=len(held), recovery_seconds=took)
    limit = settings.DEDUP_LEASE_SECONDS + 5
    found.promise(holds=took <= limit, words=f"taken up again within {limit:.0f} s")
    found.count(portal, load)
    return found
