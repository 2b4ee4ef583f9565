"""Workers that die."""

from random import Random

from django.conf import settings

from dedup.checks import HARD_LIMIT_SECONDS, LONGEST_LEASE_SECONDS
from support.outbox import MOST_ATTEMPTS
from tests.drills import outcome
from tests.drills.faulty_app import DEADLY, DEAF, SLEEPY, STUBBORN
from tests.drills.load import Load
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal

FAULTY = "tests.drills.faulty_app"


def child_killed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """The process that reads questions is killed again and again, and the worker replaces it."""
    found, kills = Outcome(), 0
    url = portal.start_web()
    portal.start_worker()
    load, worker = Load([url], rng, pause=0.3), portal.running["checks"]
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
    lives = portal.running["checks"] is worker and worker.poll() is None
    found.promise(holds=lives, words="the worker outlives its children")
    _judge_pairs(found, portal)
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
    _judge_pairs(found, portal)
    found.count(portal, load)
    return found


def poison(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Some questions kill whatever process scores them."""
    found = Outcome()
    number, deadly = (40, 2) if short else (500, 10)
    url = portal.start_web()
    load = Load([url], rng)
    load.ask_many(number, marks=[DEADLY] * deadly)
    quick = {"DRILL_ENDS_LEASES": "1"} if short else {}
    portal.start_worker(app=FAULTY, **quick)
    healthy = portal.wait(
        lambda: outcome.checked(portal) == number - deadly, "the others are checked", seconds=900
    )
    took = portal.wait(lambda: not outcome.waiting(portal), "all have an end", seconds=900)
    found.note(poison=deadly, healthy_seconds=healthy, quarantined_after_seconds=took)
    _judge_quarantine(found, portal, [DEADLY])
    found.count(portal, load, quarantined=deadly)
    return found


def scorer_hangs(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Some questions hold up whatever process scores them, for ever: each in another way."""
    found = Outcome()
    marks = [rng.choice([STUBBORN, DEAF])] if short else [SLEEPY, STUBBORN, DEAF]
    url = portal.start_web()
    load = Load([url], rng, pause=2.0, threads=1)
    limits = (4, 5, 7) if short else ()  # a busy machine needs seconds for a healthy question
    environ = {"DRILL_LIMITS": ",".join(map(str, limits)), "DEDUP_BATCH": "2"} if short else {}
    load.ask_many(12 if short else 60, marks=marks)
    portal.start_worker(app=FAULTY, **environ)
    with load:
        took = portal.wait(
            lambda: outcome.quarantined(portal) == len(marks), "they are put aside", seconds=1200
        )
    portal.wait(lambda: not outcome.waiting(portal), "all others are checked")
    hard = f"Hard time limit ({limits[1] if short else HARD_LIMIT_SECONDS}"
    kills = portal.log("checks").read_text(errors="replace").count(hard)
    found.note(hard_kills=kills, quarantined_after_seconds=took)
    wanted = MOST_ATTEMPTS * len({STUBBORN, DEAF} & set(marks))
    found.promise(holds=kills >= wanted, words=f"the hard limit ends what hears nothing: {kills}")
    is_short = HARD_LIMIT_SECONDS < settings.DEDUP_LEASE_SECONDS < LONGEST_LEASE_SECONDS
    found.promise(holds=is_short, words="a lease outlives the hard limit, and ends within 55 s")
    _judge_quarantine(found, portal, marks)
    found.count(portal, load, quarantined=len(marks))
    return found


def _judge_pairs(found: Outcome, portal: Portal) -> None:
    """There are some: without any, none could be doubled."""
    query = "SELECT (SELECT count(*) FROM dedup_flag), (SELECT count(*) FROM dedup_score)"
    ((flags, scores),) = portal.query(query)
    found.note(flags=flags, scores=scores)
    found.promise(holds=flags > 0 and scores > 0, words="pairs were scored and flagged")


def _judge_quarantine(found: Outcome, portal: Portal, marks: list[str]) -> None:
    """Only marked questions are there, all of them, each after three tries."""
    rows = portal.query(
        """SELECT title, attempts FROM support_outboxentry
           JOIN support_question ON support_question.id = question_id
           WHERE quarantined_at IS NOT NULL"""
    )
    healthy = [title for title, _ in rows if not title.endswith(tuple(marks))]
    found.promise(holds=not healthy, words=f"nothing healthy is in quarantine: {healthy}")
    tries = {attempts for _, attempts in rows}
    found.promise(holds=tries <= {MOST_ATTEMPTS}, words=f"after three tries: {tries}")
