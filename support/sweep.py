"""In every worker: looks for questions whose bell was lost, and works without a broker.

While the broker answers, the sweep only rings again. While it does not, it lets a process of its
own check what waits: the worker's main process must never load the networks, since it forks.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from celery import bootsteps
from celery.signals import task_received
from celery.worker import state
from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from support import local, outbox
from support.models import OutboxEntry

log = logging.getLogger(__name__)

# What is told that a worker lives, by its name and its queues: dedup keeps that.
SIGNS_OF_LIFE: list[Callable[[str, Collection[str]], None]] = []
DEAF_SECONDS = 60.0  # of ringing that a worker without work does not hear
CHECK_COMMAND = [sys.executable, str(settings.BASE_DIR / "manage.py"), "check_waiting"]


class Sweep(bootsteps.StartStopStep):
    """A thread beside the worker's consumer; starts before any connection to the broker."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.parent = parent
        self.stopping = threading.Event()
        self.rings_since: float | None = None  # in a row, none of which this worker heard
        task_received.connect(self._hear)
        self.thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self, parent: Any) -> None:
        self.thread.start()

    def stop(self, parent: Any) -> None:
        self.stopping.set()

    terminate = stop

    def _run(self) -> None:
        while not self.stopping.wait(settings.DEDUP_SWEEP_SECONDS):
            try:
                close_old_connections()
                self.look()
            except Exception:
                log.exception("The sweep failed, and tries again")

    def look(self) -> None:
        """Give a sign of life and sweep. Who hears no bell that it rings itself is dead to all who
        wait, and gives none: what watches over it ends it (dedup.watchdog)."""
        if self.is_deaf():
            log.error("This worker hears no bell any more, and gives no sign of life")
        else:
            give_sign(self.parent)
        done = sweep_once(self.stopping, meanwhile=lambda: give_sign(self.parent))
        if done != "rang":
            self.rings_since = None
        elif self.rings_since is None:
            self.rings_since = time.monotonic()

    def is_deaf(self) -> bool:
        """Whether this worker, which checks and has nothing to do, heard none of its rings."""
        if self.rings_since is None or state.reserved_requests or state.active_requests:
            return False
        serves = outbox.CHECK_QUEUE in self.parent.app.amqp.queues.consume_from
        return serves and time.monotonic() - self.rings_since > DEAF_SECONDS

    def _hear(self, **_: Any) -> None:
        self.rings_since = None


def give_sign(worker: Any) -> None:
    """Tell who keeps it that this worker lives. That this fails holds up no sweep."""
    for told in SIGNS_OF_LIFE:
        try:
            told(worker.hostname, list(worker.app.amqp.queues.consume_from))
        except Exception as error:
            log.warning("A sign of life is lost: %s", type(error).__name__)


def sweep_once(stopping: threading.Event, *, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Ring for what waits longer than half a pause, or check it, which may take an hour: then
    `meanwhile` is called again and again. Returns what was done."""
    now = timezone.now()
    # Half a pause: what waits from just after a look on is then found within one and a half.
    old = now - timedelta(seconds=settings.DEDUP_SWEEP_SECONDS / 2)
    is_old = OutboxEntry.objects.waiting().filter(put_at__lt=old)
    if not (outbox.has_waiting(now) and is_old.exists()):
        return "nothing waits"
    if outbox.ring(is_patient=True):
        return "rang"
    log.warning("No broker: checking what waits without one")
    child = local.spawn(CHECK_COMMAND)
    while child.poll() is None and not stopping.wait(0.5):
        meanwhile()
    local.stop(child)  # told to end, it gives its claims back
    return "checked"
