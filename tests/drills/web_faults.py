"""Web processes that die, that are asked the same twice, and that are replaced."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import requests
from django.conf import settings

from tests.drills import outcome
from tests.drills.faulty_web import AFTER, BEFORE
from tests.drills.load import ASKED, Answer, Load
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal

SWEPT_WITHIN = 10.0  # seconds
DRAINED_SECONDS = 2.0  # for what is asked of a web server already, once nobody is sent there
TOGETHER = 20
WAITS = """SELECT extract(epoch FROM settled_at - put_at)::float FROM support_outboxentry
           JOIN support_question ON support_question.id = question_id WHERE title LIKE %s"""


def web_killed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """A web process dies when a question is stored and no worker was told; or just before.

    Whoever asked hears nothing, and asks again with the same key. Nobody else asks meanwhile, and
    no beat rings, so that only the sweep can find it.
    """
    found, rounds = Outcome(), 2 if short else 12
    notes = portal.folder / "notes"
    notes.mkdir()
    url = portal.start_web(app="tests.drills.faulty_web", DRILL_NOTES=str(notes))
    portal.start_worker()
    load, session = Load([url], rng), requests.Session()
    load.ask_many(1)
    portal.wait(lambda: outcome.checked(portal), "a first check")
    for turn in range(rounds):
        portal.pause(rng.uniform(0, settings.DEDUP_SWEEP_SECONDS))  # wherever the sweep stands
        load.ask(session, turn, mark=f"{turn} {AFTER}")
        portal.wait(lambda: not outcome.waiting(portal), "it is checked")
    for turn in range(rounds):
        load.ask(session, turn, mark=f"{turn} {BEFORE}")
    portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    waits = [seconds for (seconds,) in portal.query(WAITS, f"%{AFTER}")]
    died = len(list(notes.iterdir()))
    found.note(kills=died, swept_seconds=max(waits))
    found.promise(holds=died == 2 * rounds, words="a web process died for each marked question")
    found.promise(
        holds=len(waits) == rounds and max(waits) <= SWEPT_WITHIN,
        words=f"swept and checked within {SWEPT_WITHIN:.0f} s: {waits}",
    )
    found.count(portal, load)
    return found


def same_key(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Twenty requests with one key arrive at once, at two web servers."""
    found, rows = Outcome(), 0
    urls = [portal.start_web("web"), portal.start_web("web-2")]
    portal.start_worker()
    load = Load(urls, rng)
    for turn in range(5 if short else 50):
        given, other = load.next_question("one"), load.next_question("other")
        alike = together(load, turn, f"alike-{turn}", [given] * TOGETHER)
        _judge_alike(found, alike)
        bodies = [given, other] * (TOGETHER // 2)
        rng.shuffle(bodies)
        unlike = together(load, turn, f"unlike-{turn}", bodies)
        _judge_unlike(found, unlike)
        again = together(load, turn, f"alike-{turn}", [other])
        found.promise(holds=again[0].status == 409, words="another body later on is refused")
        others = together(load, turn + 1, f"alike-{turn}", [given])
        _judge_alike(found, others)
        rows += 3
        for said in (alike, unlike, others):
            load.answers.append(_accepted(said))
    ((stored,),) = portal.query("SELECT count(*) FROM support_question")
    found.note(keys=rows, rows=stored, at_once=TOGETHER)
    found.promise(holds=stored == rows, words=f"one row for each key: {stored} of {rows}")
    portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    found.count(portal, load)
    return found


@dataclass(frozen=True)
class Said:
    """What one of many that asked at once was told."""

    given: dict[str, str]
    status: int
    body: dict[str, Any]
    is_replayed: bool
    seconds: float


def together(load: Load, who: int, key: str, bodies: list[dict[str, str]]) -> list[Said]:
    """Send all these with one key at the same moment, to all servers in turn."""
    gate = threading.Barrier(len(bodies))

    def send(number: int) -> Said:
        gate.wait()
        url = load.urls[number % len(load.urls)] + "/api/v1/questions/"
        got = requests.post(url, json=bodies[number], headers=load.headers(who, key), timeout=30)
        is_replayed = got.headers.get("Idempotent-Replayed") == "true"
        is_json = "json" in got.headers.get("Content-Type", "")
        body = got.json() if is_json else {}
        return Said(bodies[number], got.status_code, body, is_replayed, got.elapsed.total_seconds())

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(send, range(len(bodies))))


def _judge_alike(found: Outcome, said: list[Said]) -> None:
    statuses = sorted({one.status for one in said})
    found.promise(holds=statuses == [201], words=f"everybody is let in: {statuses}")
    answers = {str(sorted(one.body.items())) for one in said}
    found.promise(holds=len(answers) == 1, words=f"the same answer for all: {answers}")
    first = [one for one in said if not one.is_replayed]
    found.promise(holds=len(first) == 1, words="all but one are told that it is a repetition")


def _judge_unlike(found: Outcome, said: list[Said]) -> None:
    let_in = [one for one in said if one.status == 201]
    _judge_alike(found, let_in)
    for one in said:
        is_same = one.given == let_in[0].given
        wanted = (201, None) if is_same else (409, "idempotency_key_reused")
        got = (one.status, one.body.get("code"))
        found.promise(holds=got == wanted, words=f"{wanted} where same={is_same}: {got}")


def _accepted(said: list[Said]) -> Answer:
    """As one question that was let in."""
    first = next(one for one in said if one.status == 201)
    return Answer(ASKED, 201, max(one.seconds for one in said), 0.0, "", first.body["id"])


def rolling_restart(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Every process is replaced, one after the other, while people ask: as the guide says it."""
    found, ends = Outcome(), {}
    webs, others = ["web", "web-2"], ["checks", "beat"] if short else ["checks", "checks-2", "beat"]
    urls = [portal.start_web(name) for name in webs]
    for name in others:
        portal.start_beat() if name == "beat" else portal.start_worker(name)
    load = Load(urls, rng, pause=1.0, threads=2, reads=True)
    with load:
        portal.wait(lambda: outcome.checked(portal), "a first check")
        for turn in range(2 if short else 5):
            for name in [*webs, *others]:
                ends[name, turn] = restart(portal, load, name, is_reload=bool(turn % 2))
                portal.pause(0.5)
    took = portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    unanswered = sum(answer.status == 0 for answer in load.answers)
    by_force = [name for (name, _), status in ends.items() if status == -9]
    found.note(restarts=len(ends), recovery_seconds=took)
    found.promise(holds=not unanswered, words=f"nobody is left without an answer: {unanswered}")
    found.promise(holds=not by_force, words=f"all end when they are told to: {by_force}")
    found.count(portal, load)
    return found


def restart(portal: Portal, load: Load, name: str, *, is_reload: bool) -> int:
    """Replace it; return once it is at work. The exit status of what was ended.

    A web server gets new processes in place (SIGHUP), or the proxy sends nobody there first.
    """
    if name not in portal.urls:
        status, checked = portal.stop(name), outcome.checked(portal)
        portal.start_again(name)
        if name.startswith("checks"):
            portal.wait(lambda: outcome.checked(portal) > checked, f"{name} is at work")
        return status
    if is_reload:
        portal.reload(name)
        return 0
    load.urls.remove(portal.urls[name])
    portal.pause(DRAINED_SECONDS)
    status = portal.stop(name)
    portal.start_again(name)
    portal.await_web(name)
    load.urls.append(portal.urls[name])
    return status
