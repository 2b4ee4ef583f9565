"""The door for long work. Apart from `tasks`, so that its worker never loads the networks.

Each job has a process of its own (`manage.py run_job`): its memory is bounded and given back, it
can be killed without the worker, and a worker that waits costs next to nothing.
"""

import logging
import subprocess
import sys
from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from django.utils import timezone

from dedup import jobs
from support import local

log = logging.getLogger(__name__)

RUN_COMMAND = [sys.executable, str(settings.BASE_DIR / "manage.py"), "run_job"]

_children: list["subprocess.Popen[bytes]"] = []
_is_ending = False


@shared_task(name=jobs.RUN_TASK, ignore_result=True)  # no time limit: a job may take an hour
def run_jobs(**_: object) -> None:
    """Do what waits, one job after the other. Safe to repeat and to overlap."""
    while not _is_ending and jobs.has_waiting(timezone.now()):
        if _run_one() != 0:  # nothing that can be done here, or a process that died: beat rings
            return


def _run_one() -> int:
    child = local.spawn(RUN_COMMAND)
    _children.append(child)
    try:
        return child.wait()
    finally:
        _children.remove(child)


@worker_shutting_down.connect
def end_jobs(**_: Any) -> None:
    """Tell running jobs to end: they give themselves back, and another worker goes on with them."""
    global _is_ending  # noqa: PLW0603 - of this process, which is about to end
    _is_ending = True
    for child in list(_children):
        log.info("The worker ends, and gives its job back")
        child.terminate()
