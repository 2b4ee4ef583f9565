"""Merges and unmerges while what they run in dies."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import requests
from django.db import connection

from support import audit, merging
from support.models import AuditEntry, Merge, Product, Question, User
from support.permissions import ADMIN
from tests.drills.load import tokens_of
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal
from tests.support import test_merging_crashes as crashes

CONNECTIONS = 8
QUESTIONS = 40
MANY = 20  # merges, at the least, for a storm
PATIENCE_SECONDS = 90.0
TIMEOUT_SECONDS = 15.0


# --- A storm of merges ------------------------------------------------------------------------


@dataclass
class Storm:
    """Admins who merge and take back at random through the API, several at once."""

    url: str
    questions: list[int]
    rng: Random
    tokens: list[str] = field(default_factory=lambda: tokens_of(ADMIN, CONNECTIONS))
    statuses: Counter[int] = field(default_factory=Counter)
    merged: set[int] = field(default_factory=set)  # edges that we were told of
    undone: set[int] = field(default_factory=set)
    bare: int = 0  # 503 that do not say when to come again
    _stopping: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Storm":
        for number, token in enumerate(self.tokens):
            one = threading.Thread(
                target=self._work, args=[token, Random(self.rng.random()), number]
            )
            self._running.append(one)
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for one in self._running:
            one.join()

    def _work(self, token: str, rng: Random, who: int) -> None:
        session, turn = requests.Session(), 0
        session.headers["Authorization"] = f"Bearer {token}"
        while not self._stopping.is_set():
            turn += 1
            key = f"{who}-{turn}"
            if self.merged and rng.random() < 0.45:
                edge = rng.choice(sorted(self.merged))
                if self._insist(session, f"/api/v1/merges/{edge}/undo/", {}, key).get("undone_at"):
                    self.undone.add(edge)
            else:
                one, other = rng.sample(self.questions, 2)
                given = {"duplicate": one, "canonical": other, "reason": "storm"}
                if edge := self._insist(session, "/api/v1/merges/", given, key).get("id"):
                    self.merged.add(edge)

    def _insist(
        self, session: requests.Session, path: str, given: dict[str, Any], key: str
    ) -> dict[str, Any]:
        """Send until there is an answer that is no 503; {} where it was refused."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                got = session.post(
                    self.url + path, json=given, timeout=TIMEOUT_SECONDS,
                    headers={"Idempotency-Key": key},
                )  # fmt: skip
            except requests.RequestException:
                self.statuses[0] += 1
                time.sleep(0.1)
                continue
            self.statuses[got.status_code] += 1
            if got.status_code != 503:
                return dict(got.json()) if got.ok else {}
            self.bare += "Retry-After" not in got.headers
            time.sleep(0.1)
        return {}


def merge_storm(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Web processes are killed and Postgres dies while eight admins merge the same questions."""
    found, faults = Outcome(), Counter()
    url = portal.start_web()
    with Storm(url, some_questions(), rng) as storm:
        for turn in range(3 if short else 12):
            portal.pause(2 if short else 5)
            if turn % 3 == 1:
                portal.kill_postgres()
                portal.start_postgres()
                faults["database"] += 1
            elif turn % 3 == 2:
                portal.kill("web")
                portal.start_again("web")
                faults["web"] += 1
            else:
                faults["web_child"] += portal.kill_child("web")
        took = portal.wait(lambda: grew(storm), "merges go on")
        portal.wait(lambda: len(storm.merged) > MANY, f"{MANY} merges")
    connection.close()
    gone = storm.merged - set(Merge.objects.values_list("pk", flat=True))
    open_again = Merge.objects.filter(pk__in=storm.undone, undone_at=None).count()
    unaudited = without_audit()
    bad = len(merging.broken_pointers())
    failures = sum(n for status, n in storm.statuses.items() if status >= 500 and status != 503)
    found.note(
        accepted=len(storm.merged) + len(storm.undone), merged=len(storm.merged),
        undone=len(storm.undone), lost=len(gone) + open_again, doubled=doubled_edges(),
        bad_rows=bad, unavailable=storm.statuses[503], unanswered=storm.statuses[0],
        **{"5xx": failures}, recovery_seconds=took, faults=dict(faults),
    )  # fmt: skip
    found.promise(holds=not gone and not open_again, words="what was said to be done is done")
    found.promise(holds=bad == 0, words="the forest is flat")
    found.promise(holds=doubled_edges() == 0, words="one edge at most leads away from a question")
    found.promise(holds=unaudited == 0, words="every merge stands in the audit trail")
    found.promise(holds=audit.verify().broken is None, words="the audit trail verifies")
    found.promise(holds=failures == 0, words=f"no request fails: {dict(storm.statuses)}")
    found.promise(holds=storm.bare == 0, words="503 says when to come again")
    return found


def some_questions() -> list[int]:
    """Questions to merge, of one person."""
    product, _ = Product.objects.get_or_create(slug="lamp", defaults={"name": "Lamp"})
    asker = User.objects.create(username="asker")
    made = Question.objects.bulk_create(
        Question(title=f"How do I change bulb {n}?", product=product, asked_by=asker)
        for n in range(QUESTIONS)
    )
    return [question.pk for question in made]


def grew(storm: Storm) -> bool:
    """Whether somebody merges, within a second."""
    before = len(storm.merged)
    time.sleep(1)
    return len(storm.merged) > before


def doubled_edges() -> int:
    """Questions from which more than one merge leads away that was not taken back."""
    edges = Merge.objects.filter(undone_at=None).values_list("duplicate", flat=True)
    return len(edges) - len(set(edges))


def without_audit() -> int:
    """How many merges and unmerges the audit trail does not tell of, or tells of without them."""
    said = Counter(AuditEntry.objects.values_list("action", flat=True))
    undone = Merge.objects.exclude(undone_at=None).count()
    merged = Merge.objects.count()  # each is told in the histories of both questions
    return abs(said["merged"] - 2 * merged) + abs(said["unmerged"] - 2 * undone)


# --- A crash at each statement ----------------------------------------------------------------


def merge_crashed(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """A process that merges, takes back or restores is killed after each of its statements."""
    found, kills, done, torn = Outcome(), 0, 0, []
    admin = User.objects.create(username="admin", is_superuser=True)
    for prepare in (crashes.merge_of_two_threads, crashes.unmerge_of_a_subtree, crashes.restoring):
        admin.may_merge()  # what a person may do is read once and kept
        act = prepare(admin)
        before, count = crashes.everything(), crashes.statements_of(act)
        for statement in range(1, count + 1):
            for is_after in (False, True):
                kills += killed_at(act, statement, is_after=is_after)
                if crashes.everything() != before:
                    torn.append(f"{prepare.__name__} at {statement}")
        is_done = not killed_at(act, count + 1, is_after=False)
        found.promise(holds=is_done, words=f"{prepare.__name__} is done where nothing is killed")
        changed = crashes.everything() != before
        found.promise(holds=changed, words=f"{prepare.__name__} then changes something")
    for _ in range(20 if short else 200):
        grown = grown_by_a_killed_merge(admin, rng)
        done += grown == {1}
        torn += [] if grown in ({0}, {1}) else [f"at any moment: {grown}"]
    bad = len(merging.broken_pointers())
    found.note(
        kills=kills,
        done_before_the_kill=done,
        torn=len(torn),
        bad_rows=bad,
        lost=len(torn),
        doubled=doubled_edges(),
    )
    found.promise(holds=kills > 60, words="there were statements to be killed at")
    found.promise(holds=not torn, words=f"all or nothing: {torn}")
    found.promise(holds=bad == 0, words="the forest is flat")
    found.promise(holds=audit.verify().broken is None, words="the audit trail verifies")
    return found


def killed_at(act: Callable[[], Any], statement: int, *, is_after: bool) -> bool:
    """Let another process act and kill itself before or after this statement; whether it did."""

    class Killing:
        passed = 0

        def __call__(self, execute: Any, *given: Any) -> Any:
            Killing.passed += 1
            if Killing.passed == statement and not is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = execute(*given)
            if Killing.passed == statement:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

    def act_and_die() -> None:
        with connection.execute_wrapper(Killing()):
            act()

    return in_another_process(act_and_die) == -signal.SIGKILL


def grown_by_a_killed_merge(admin: User, rng: Random) -> set[int]:
    """Kill another process at any moment of a merge, its commit too; by how much what it writes has
    grown: {0} or {1} where it is all or nothing."""
    act, before = crashes.merge_of_two_threads(admin), steps()
    in_another_process(act, seconds=rng.uniform(0.005, 0.06))
    return {now - was for now, was in zip(steps(), before, strict=True)}


def steps() -> tuple[int, ...]:
    """Counts that a merge raises by one, all or none, as they are at one moment."""
    with connection.cursor() as cursor:  # one statement: a commit on its way falls before or after
        cursor.execute(
            """SELECT (SELECT count(*) FROM support_merge WHERE undone_at IS NULL),
                      (SELECT count(DISTINCT details ->> 'merge') FROM support_auditentry
                       WHERE action = 'merged'),
                      (SELECT count(*) FROM support_question WHERE canonical_id IS NOT NULL)"""
        )
        return tuple(cursor.fetchone())


def in_another_process(act: Callable[[], Any], *, seconds: float = 60.0) -> int:
    """What it ended with: 0, 1 where it raised, or below zero the signal that ended it; killed
    after `seconds`."""
    connection.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.0005)
        ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status)
