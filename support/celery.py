"""The Celery app: four queues, and what beat rings.

The broker carries no questions, only bells: what waits lies in Postgres (support.outbox).
"""

import os
from typing import Any, Self

from celery import Celery
from celery.app.amqp import AMQP
from celery.signals import task_prerun, worker_init
from django.db import close_old_connections
from kombu import Connection, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "support.settings")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # each worker process keeps to its thread

LONGEST_PAUSE_SECONDS = 4  # between two looks for a broker that is away; Celery's own is 30


class BrokerConnection(Connection):
    """A connection whose worker takes bells again soon after the broker is back."""

    def ensure_connection(self, *args: Any, **options: Any) -> Self:
        return super().ensure_connection(
            *args, **{"interval_max": LONGEST_PAUSE_SECONDS, **options}
        )


class Broker(AMQP):
    """What Celery makes its connections with."""

    Connection = BrokerConnection


CONF: dict[str, Any] = {
    "task_ignore_result": True,
    "task_acks_late": False,  # a bell may be lost: the sweep, or beat, rings again
    "task_default_queue": "checks",
    "task_queues": [Queue("interactive"), Queue("checks"), Queue("mail"), Queue("training")],
    "task_routes": {
        "dedup.tasks.suggest": {"queue": "interactive"},
        "dedup.tasks.run_jobs": {"queue": "training"},
        "dedup.tasks.follow_in_shadow": {"queue": "training"},
        "support.tasks.*": {"queue": "mail"},
    },
    "beat_schedule": {
        "check-waiting": {"task": "dedup.tasks.check_waiting", "schedule": 10.0},
        "send-notifications": {
            "task": "support.tasks.send_notifications",
            "schedule": 10.0,
            "options": {"expires": 10.0},
        },
        "send-confirmations": {
            "task": "support.tasks.send_confirmations",
            "schedule": 10.0,
            "options": {"expires": 10.0},
        },
        "fetch-mail": {
            "task": "support.tasks.fetch_mail",
            "schedule": 30.0,
            "options": {"expires": 30.0},
        },
        "choose-pairs": {"task": "dedup.tasks.choose_pairs", "schedule": 86_400.0},
        "score-labels": {"task": "dedup.tasks.score_labels", "schedule": 3600.0},
        "forget-deflections": {"task": "dedup.tasks.forget_deflections", "schedule": 86_400.0},
        "run-jobs": {
            "task": "dedup.tasks.run_jobs",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        },
        "follow-in-shadow": {
            "task": "dedup.tasks.follow_in_shadow",
            "schedule": 300.0,
            "options": {"expires": 300.0},
        },
        "look-at-bounds": {
            "task": "dedup.tasks.look_at_bounds",
            "schedule": 600.0,
            "options": {"expires": 600.0},
        },
        # Where no worker checks any more, the one for suggestions notices.
        "look-at-bounds-for-others": {
            "task": "dedup.tasks.look_at_bounds",
            "schedule": 600.0,
            "kwargs": {"stands_in": True},
            "options": {"expires": 600.0, "queue": "interactive"},
        },
        "send-alerts": {
            "task": "dedup.tasks.send_alerts",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        },
        "tidy": {"task": "support.tasks.tidy", "schedule": 3600.0},
    },
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {
        "socket_timeout": 0.4,  # one of them until a broker that hangs is given up
        "socket_connect_timeout": 0.4,
        "max_retries": 1,
        "visibility_timeout": 60,
    },
    # A new connection for each task, as Celery's default is, costs a suggestion 20 ms of processor.
    "CELERY_DB_REUSE_MAX": 1000,
    "worker_proc_alive_timeout": 60,
    "worker_prefetch_multiplier": 1,
    "worker_hijack_root_logger": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}


def _app(*packages: str, tasks: str = "tasks", **options: Any) -> Celery:
    made = Celery("askonce", amqp=Broker, **options)
    made.config_from_object("django.conf:settings", namespace="CELERY")
    made.conf.update(CONF)
    made.autodiscover_tasks(list(packages) or None, related_name=tasks)
    return made


# A worker for mail alone: it knows no task of dedup, and so it never loads the networks.
mail_app = _app("support", set_as_current=False)
# One for long work alone: each job has a process of its own, so the worker never loads them either.
training_app = _app("dedup", tasks="job_tasks", set_as_current=False)
app = _app()


@task_prerun.connect
def renew_connections(**_: Any) -> None:
    """Let a task not meet the connection that broke under the one before it."""
    close_old_connections()


@worker_init.connect  # Django is ready then, and the sweep reads its rows
def add_sweep(sender: Any = None, **_: Any) -> None:
    from support.sweep import Sweep  # noqa: PLC0415 - its models need a ready Django

    app.steps["worker"].add(Sweep)
