"""People who ask while something breaks, and what they were told.

Each asks through the API with an `Idempotency-Key`, and as a well-made program does: where no
answer comes, or 503, the same again with the same key, at the next web process.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
import requests
from django.contrib.auth.models import Group
from django.utils import timezone

from dedup.management.demo import text
from support.models import ApiToken, Product, User
from support.permissions import CUSTOMER

PEOPLE = 8
TIMEOUT_SECONDS = 10.0
AGAIN_SECONDS = 0.1
ASKED, READ = "asked", "read"


@dataclass(frozen=True)
class Answer:
    """What one request got; status 0 where no answer came."""

    what: str
    status: int
    seconds: float
    at: float  # monotonic, when it was sent
    retry_after: str = ""
    id: int = 0


@dataclass
class Load:
    """Threads that ask and read until they are stopped."""

    urls: list[str]
    rng: Random
    pause: float = 0.2  # seconds between two questions of one thread
    threads: int = 4
    reads: bool = False  # whether pages are read as well
    answers: list[Answer] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = tokens_of(CUSTOMER, PEOPLE)
        self._texts = texts(self.rng)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def __enter__(self) -> "Load":
        work = [self._ask_on] * self.threads + [self._read_on] * self.reads
        for number, one in enumerate(work):
            thread = threading.Thread(target=one, args=[number], daemon=True)
            self._running.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everybody get an answer to what they have just asked."""
        self._stopping.set()
        for thread in self._running:
            thread.join()

    def again(self) -> "Load":
        """The same people, once more."""
        self._stopping.clear()
        self._running.clear()
        return self

    # --- What people do -----------------------------------------------------------------------

    def ask_many(self, number: int, *, marks: Sequence[str] = ()) -> None:
        """So many questions, one after the other, each until it is accepted; some of them marked,
        whichever it is."""
        session = requests.Session()
        marked = dict(zip(self.rng.sample(range(number), len(marks)), marks, strict=True))
        for one in range(number):
            self.ask(session, one, mark=marked.get(one, ""))

    def ask(
        self, session: requests.Session, who: int, *, mark: str = "", patience: float = 120.0
    ) -> Answer:
        """One question, until it is accepted or refused; with a `mark` at its end."""
        given, number = self.next_question(mark), next(self._numbers)
        headers = self.headers(who, f"key-{number}")
        deadline = time.monotonic() + patience
        for turn in itertools.count(number):
            answer = self._send(
                session, ASKED, "POST", turn, "/api/v1/questions/", json=given, headers=headers
            )
            if answer.status not in {0, 409, 502, 503} or time.monotonic() > deadline:
                return answer
            time.sleep(AGAIN_SECONDS)
        raise AssertionError

    def next_question(self, mark: str = "") -> dict[str, str]:
        """What somebody asks next, as a program sends it."""
        with self._lock:
            title, body = next(self._texts)
        title = f"{title} {mark}".strip()
        return {"title": title, "body": body, "product": "lamp", "audience": "public"}

    def headers(self, who: int, key: str) -> dict[str, str]:
        """Of a request by one of the people."""
        token = self.tokens[who % len(self.tokens)]
        return {"Authorization": f"Bearer {token}", "Idempotency-Key": key}

    def _ask_on(self, who: int) -> None:
        session = requests.Session()
        while not self._stopping.is_set():
            self.ask(session, who)
            self._stopping.wait(self.pause)

    def _read_on(self, who: int) -> None:
        session = requests.Session()
        for turn in itertools.count():
            if self._stopping.is_set():
                return
            self._send(session, READ, "GET", turn, ("/", "/?q=lamp")[turn % 2])
            self._stopping.wait(self.pause)

    def _send(
        self, session: requests.Session, what: str, method: str, turn: int, path: str, **given: Any
    ) -> Answer:
        """Send once; a connection that is refused goes to the next web process, as behind a
        proxy."""
        at = time.monotonic()
        answer = Answer(what, 0, 0.0, at)
        urls = list(self.urls)  # a drill may take one out meanwhile
        for step in range(len(urls)):
            url = urls[(turn + step) % len(urls)]
            try:
                got = session.request(method, url + path, timeout=TIMEOUT_SECONDS, **given)
            except requests.ConnectionError as error:
                if "refused" in str(error):
                    continue
                break
            except requests.RequestException:
                break
            known = got.json().get("id", 0) if got.status_code == 201 else 0
            answer = Answer(
                what, got.status_code, 0.0, at, got.headers.get("Retry-After", ""), known
            )
            break
        answer = replace(answer, seconds=time.monotonic() - at)
        self.answers.append(answer)
        return answer

    # --- What they were told ------------------------------------------------------------------

    def accepted(self) -> list[int]:
        """Ids of questions that were said to be stored."""
        return [answer.id for answer in self.answers if answer.status == 201]


def between(answers: Sequence[Answer], begun: float, ended: float) -> dict[str, float]:
    """How many questions were sent within that time, and how long their answers took, in ms."""
    took = [one.seconds for one in answers if one.what == ASKED and begun <= one.at < ended]
    worst = float(np.percentile(np.asarray(took) * 1000, 99)) if took else 0.0
    return {"number": len(took), "p99_ms": round(worst, 1)}


def texts(rng: Random) -> Any:
    """The demo's questions without end: each twice the same and later with another number."""
    rows = [row["title"] for row in text.seed()["questions"]]
    rng.shuffle(rows)
    for turn in itertools.count():
        for title in rows:
            for _ in range(2):
                yield (f"{title} ({turn})" if turn else title)[:200], ""


def tokens_of(role: str, number: int) -> list[str]:
    """A token that may write for each of so many people of this role."""
    Product.objects.get_or_create(slug="lamp", defaults={"name": "Lamp"})
    soon = timezone.now() + timedelta(days=1)
    tokens = []
    for one in range(number):
        person, _ = User.objects.get_or_create(username=f"{role}{one}")
        person.groups.add(Group.objects.get(name=role))
        issued = ApiToken.objects.issue(user=person, name="drill", expires_at=soon)
        tokens.append(issued[1])
    return tokens
