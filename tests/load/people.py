"""A locustfile: people who ask, read, search, write drafts and decide, all of them at random.

`python -m tests.load` starts a portal and sends them there. Against a portal that runs:
`LOAD_PEOPLE=people.json locust -f tests/load/people.py --host https://…`, where the file has
tokens that may write (`customers`, `agents`), `titles`, ids of `questions`, `rates` and a `seed`.
"""

import itertools
import json
import os
import time
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

from locust import FastHttpUser, task

PEOPLE = json.loads(Path(os.environ["LOAD_PEOPLE"]).read_text(encoding="utf-8"))
RNG = Random(PEOPLE["seed"])
NUMBERS = itertools.count(1)


class Person(FastHttpUser):
    """One who does something once a second, on average; so many of each kind as their rate.

    When is left to chance, and does not depend on how long the answers take: so do people come who
    know nothing of each other (a Poisson process).
    """

    abstract = True
    role = "customers"

    def wait_time(self) -> float:
        self.next_at += RNG.expovariate(1.0)
        return max(0.0, self.next_at - time.monotonic())

    def on_start(self) -> None:
        self.next_at = time.monotonic()
        self.wait()
        # Each has a computer of their own, as a proxy in front of the portal would say.
        self.computer = {"X-Forwarded-For": str(IPv4Address(RNG.getrandbits(32)))}
        self.headers = self.computer | {"Authorization": f"Bearer {RNG.choice(PEOPLE[self.role])}"}

    def title(self) -> str:
        return str(RNG.choice(PEOPLE["titles"]))


class Asker(Person):
    fixed_count = PEOPLE["rates"]["ask"]

    @task
    def ask(self) -> None:
        number = next(NUMBERS)
        given = {"title": f"{self.title()[:180]} ({number})", "product": "lamp"}
        headers = self.headers | {"Idempotency-Key": f"load-{os.getpid()}-{number}"}
        self.client.post("/api/v1/questions/", json=given, headers=headers, name="ask")


class Reader(Person):
    fixed_count = PEOPLE["rates"]["read"]

    @task(6)
    def read_question(self) -> None:
        pk = RNG.choice(PEOPLE["questions"])
        self.client.get(f"/questions/{pk}/", headers=self.computer, name="read a question")

    @task(2)
    def read_list(self) -> None:
        self.client.get("/", headers=self.computer, name="read the list")

    @task(2)
    def search(self) -> None:
        words = " ".join(self.title().split()[:4])
        self.client.get("/", params={"q": words}, headers=self.computer, name="search")


class Writer(Person):
    fixed_count = PEOPLE["rates"]["suggest"]

    @task
    def suggest(self) -> None:
        given = {"title": self.title()[:100]}
        self.client.post("/api/v1/similar/", json=given, headers=self.headers, name="suggest")


class Decider(Person):
    role = "agents"
    fixed_count = PEOPLE["rates"]["decide"]

    @task
    def decide(self) -> None:
        given = {"status": "open"}
        queue = self.client.get(
            "/api/v1/flags/", params=given, headers=self.headers, name="read the queue"
        )
        flags = queue.json().get("results", []) if queue.ok else []
        if flags:
            flag, verdict = RNG.choice(flags)["id"], RNG.choice(["dismissed", "related"])
            self.client.post(
                f"/api/v1/flags/{flag}/reviews/", json={"verdict": verdict}, headers=self.headers,
                name="decide",
            )  # fmt: skip
