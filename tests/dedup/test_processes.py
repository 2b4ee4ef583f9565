"""Real workers on real services: told to stop, stuck, without a broker. Drills kill them."""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from dedup import releases, suggesting, watchdog
from dedup.management import diagnosis
from dedup.management.demo import text
from dedup.management.demo.stack import Stack
from dedup.models import Draft, Flag, Score, Worker
from support import answering, asking, local, outbox
from support.models import Notification, OutboxEntry, Question
from tests import services
from tests.factories import ProductFactory, SubscriptionFactory, UserFactory

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

PATIENCE = 120.0  # seconds until a test gives up; none waits this long when all is well


def eventually(condition, *, what, patience=PATIENCE):
    """Return what `condition` returns as soon as it is true."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.05)
    return found


class Workers:
    """Workers as the demo starts them, on the test's own database."""

    def __init__(self, folder, artifacts):
        self.folder, self.running = folder, []
        server = os.environ["DATABASE_URL"].rpartition("/")[0]
        self.environ = os.environ | {
            "DATABASE_URL": f"{server}/{connection.settings_dict['NAME']}",
            "DEDUP_ARTIFACTS": str(artifacts),
            "DEDUP_SWEEP_SECONDS": "1",
            "DEDUP_NICENESS": "0",  # beside other tests it would get next to nothing
            "DEDUP_SHORTLIST": "6",  # what is killed here are processes; the pairs are few
        }

    @property
    def log(self):
        return self.folder / "workers.log"

    def start(self, queue="checks"):
        app, *pool = diagnosis.OTHER_APPS.get(queue, "support").split()
        words = ["celery", "-A", app, "worker", "-Q", queue, *pool, "-c", "1"]
        name = f"{queue}-{len(self.running)}@%h"
        argv = [sys.executable, "-m", *words, "-n", name, "-l", "INFO"]
        self.running.append(local.spawn(argv, log=self.log, env=self.environ))
        return self.running[-1]

    def kill_all(self):
        for worker in self.running:
            kill_with_children(worker)

    def says(self, words):
        return self.log.exists() and words in self.log.read_text(errors="replace")


def kill_with_children(worker):
    """As when the machine, or its memory, is gone: nobody of the group can say a word."""
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def children_of(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def valkey(monkeypatch):
    """The session's broker, empty; it may be killed."""
    assert services.services
    server = services.services.valkey
    if server is None:
        pytest.skip("REDIS_URL names a broker that the tests may not kill")
    outbox.app.control.purge()
    monkeypatch.setattr(outbox, "_silent_until", 0.0)
    yield server
    if server.process.poll() is not None:
        server.restart()
    outbox.app.control.purge()


@pytest.fixture
def workers(transactional_db, tmp_path, settings):
    """The shipped release, or the folder that ASKONCE_TEST_RELEASE names, is in service."""
    shipped = settings.DEDUP_ARTIFACTS / settings.DEDUP_RELEASE
    folder = Path(os.environ.get("ASKONCE_TEST_RELEASE", shipped))
    settings.DEDUP_ARTIFACTS = folder.parent
    releases.activate(release=releases.add(folder.name))
    started = Workers(tmp_path, folder.parent)
    yield started
    started.kill_all()


def ask(rows):
    product, asker = ProductFactory(), UserFactory()
    return [
        asking.submit_question(
            product=product, title=row["title"], body=row["body"], audience="public", by=asker
        )
        for row in rows
    ]


def hundred():
    """Fifty short questions of the demo, each asked twice."""
    return [row | {"body": ""} for row in text.seed()["questions"][:50] for _ in range(2)]


def settled():
    return OutboxEntry.objects.filter(settled_at__isnull=False).count()


def held():
    return OutboxEntry.objects.waiting().filter(token__isnull=False).count()


def in_mid_batch():
    return settled() and held()


def assert_all_checked_once(number):
    entries = OutboxEntry.objects.all()
    assert (entries.count(), entries.unchecked().count()) == (number, 0)
    for model in (Flag, Score):
        pairs = [frozenset(pair) for pair in model.objects.values_list("older", "newer")]
        assert pairs, f"{model.__name__}: without any, none could be doubled"
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(("queues", "gives_way"), [("checks", 1), ("checks,interactive", 0)])
def test_a_worker_that_only_checks_lets_those_go_first_who_are_waited_for(
    valkey, workers, queues, gives_way
):
    workers.environ["DEDUP_NICENESS"] = str(settings.DEDUP_NICENESS)
    worker = workers.start(queues)
    eventually(lambda: workers.says("release minilm"), what="its networks")

    (child,) = children_of(worker.pid)
    own = os.getpriority(os.PRIO_PROCESS, worker.pid)
    assert os.getpriority(os.PRIO_PROCESS, child) == own + gives_way * settings.DEDUP_NICENESS


def test_a_worker_that_is_told_to_stop_at_once_gives_its_batch_back(valkey, workers):
    ask(hundred())
    worker = workers.start()
    eventually(in_mid_batch, what="a batch in progress")

    worker.send_signal(signal.SIGQUIT)
    worker.wait(30)

    eventually(lambda: held() == 0, what="all given back", patience=30)  # no lease ends so soon
    assert not OutboxEntry.objects.filter(is_suspect=True).exists()
    assert outbox.has_waiting(timezone.now())


def test_a_worker_that_is_told_to_stop_ends_its_batch_first(valkey, workers):
    ask(hundred())
    worker = workers.start()
    eventually(in_mid_batch, what="a batch in progress")

    worker.send_signal(signal.SIGTERM)
    worker.wait(60)

    assert held() == 0
    assert not OutboxEntry.objects.filter(is_suspect=True).exists()


def test_a_worker_that_was_stopped_is_killed_and_another_checks_what_waits(
    valkey, workers, tmp_path, monkeypatch
):
    """As a demo's supervisor does it; only that the minutes pass at once."""
    monkeypatch.setattr(watchdog, "AGAIN_SECONDS", 0.5)
    database = SimpleNamespace(database_url=workers.environ["DATABASE_URL"])
    stack = Stack(tmp_path, "localhost", 0, database, workers.environ)
    stack.run("checks")
    workers.running.append(first := stack.children["checks"])
    eventually(Worker.objects.exists, what="its sign of life")
    assert stack.restart_stuck() == []

    first.send_signal(signal.SIGSTOP)
    for child in children_of(first.pid):
        os.kill(child, signal.SIGSTOP)
    ask(hundred()[:2])
    long_ago = timezone.now() - timedelta(seconds=200)
    Worker.objects.update(seen_at=long_ago)
    OutboxEntry.objects.update(put_at=long_ago)
    assert stack.restart_stuck() == []  # it may be loading its networks
    stack.began_at["checks"] -= 1000

    assert stack.restart_stuck() == []  # one look is not enough
    restarted = eventually(stack.restart_stuck, what="it is killed", patience=10)

    assert restarted == ["checks"]
    workers.running.append(stack.children["checks"])
    assert first.poll() == -signal.SIGKILL
    eventually(lambda: settled() == 2, what="all checked")
    assert stack.restart_stuck() == []


def test_a_broker_that_comes_back_empty_stops_nothing(valkey, workers):
    worker = workers.start()
    eventually(lambda: workers.says("ready."), what="a worker")
    ask(hundred())
    eventually(in_mid_batch, what="a batch in progress")
    valkey.kill()
    time.sleep(1)  # for how long it is away
    valkey.restart()

    eventually(lambda: settled() == 100, what="all checked")
    assert_all_checked_once(100)
    assert worker.poll() is None


def test_bells_that_were_all_lost_are_rung_again_by_the_sweep(valkey, workers):
    ask(hundred())
    outbox.app.control.purge()
    workers.start()

    eventually(lambda: settled() == 100, what="all checked")
    assert_all_checked_once(100)


def test_without_a_broker_a_question_is_stored_within_a_second_and_still_checked(
    valkey, workers, monkeypatch
):
    valkey.kill()
    (first, second), took = text.seed()["questions"][:2], []
    for row in (first, first, second):
        begun = time.monotonic()
        ask([row])
        took.append(time.monotonic() - begun)
    assert max(took) < 1, took

    workers.start()

    eventually(lambda: settled() == 3, what="all checked")
    assert Question.objects.count() == 3
    assert Flag.objects.count() >= 1
    assert workers.says("No broker: checking what waits without one")


def test_a_worker_started_without_a_broker_takes_bells_when_it_comes(valkey, workers):
    valkey.kill()
    workers.start()
    eventually(lambda: workers.says("Cannot connect"), what="the worker misses its broker")
    valkey.restart()
    eventually(lambda: workers.says("ready."), what="the worker has its broker")

    ask(text.seed()["questions"][:1])

    eventually(lambda: settled() == 1, what="all checked")
    assert not workers.says("checking what waits without one")


def test_the_doctor_sees_which_workers_answer(valkey, workers):
    workers.start("checks")
    eventually(lambda: workers.says("ready."), what="a worker")
    expected = {
        "workers: checks": "good",
        "workers: interactive": "broken",
        "workers: mail": "broken",
        "workers: training": "broken",
    }

    def states():
        return {found.name: found.state for found in diagnosis._workers()}

    # A busy worker may be slower than the doctor waits, once.
    eventually(lambda: states() == expected, what="its answer")


def others(what, said="%"):
    """Of each connection that another process has to this database, and last said such a thing."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {what} FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE %s",
            [said],
        )
        return {row[0] for row in cursor.fetchall()}


def test_a_worker_suggests_by_meaning_what_a_reader_asks_again(valkey, workers, settings):
    settings.DEDUP_SUGGEST_SECONDS = 2.0
    first, second = text.seed()["questions"][:2]
    known, _ = ask([first, second])
    workers.start("checks")
    eventually(lambda: settled() == 2, what="all checked")
    workers.start("interactive")

    def look():
        found = suggesting.similar(title=first["title"], body=first["body"], reader=AnonymousUser())
        return found if found.by_meaning else None

    found = eventually(look, what="the worker answers")
    assert found.questions[0] == known
    assert not Draft.objects.exists()

    (kept,) = others("pid", '%"dedup_draft"%')
    assert eventually(look, what="it answers again")
    # a new connection for each draft took a third of its time
    assert others("pid", '%"dedup_draft"%') == {kept}
    others("pg_terminate_backend(pid)")
    assert eventually(look, what="it answers although its connection broke")


def test_a_worker_for_mail_sends_at_once_and_never_loads_the_networks(valkey, workers):
    workers.environ["EMAIL_URL"] = "console"
    worker = workers.start("mail")
    eventually(lambda: workers.says("ready."), what="a worker")

    question = SubscriptionFactory().question
    answering.post_answer(question=question, body="Turn it.", by=UserFactory())

    eventually(
        lambda: Notification.objects.filter(status="sent").exists(), what="a mail", patience=9
    )
    assert workers.says("List-Unsubscribe-Post: List-Unsubscribe=One-Click")
    for pid in [worker.pid, *children_of(worker.pid)]:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    assert "workers: mail" in {f.name for f in diagnosis._workers() if f.state == diagnosis.GOOD}
