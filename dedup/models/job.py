"""Long work in the background, and how far it is."""

from datetime import timedelta
from typing import Self

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class JobQuerySet(models.QuerySet["Job"]):
    def unfinished(self) -> Self:
        """Jobs that wait or run; also those whose worker died and that nobody has taken up yet."""
        return self.filter(state__in=[Job.State.WAITING, Job.State.RUNNING])


class Job(models.Model):
    """Long work in the background; its row says how far it is.

    Most is done by a worker of the training queue. What is `BY_CHECKS` lies in the outbox, and is
    done by all that check questions (see dedup.backfilling): no run holds it.

    `token` names the run that may write to it, so that a worker which was believed dead and comes
    back changes nothing. A job is taken up again, from its last checkpoint, where no sign of life
    came for a while (see dedup.jobs).
    """

    class Kind(models.TextChoices):
        TRAIN = "train", _("Train a release")
        DISTIL = "distil", _("Distil a release")
        EVALUATE = "evaluate", _("Evaluate a release")
        ADOPT = "adopt", _("Take a checkpoint as a release")
        RECHECK = "recheck", _("Check all questions again")
        BACKFILL = "backfill", _("Find duplicates among all questions")

    class State(models.TextChoices):
        WAITING = "waiting", _("Waits")
        RUNNING = "running", _("Runs")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        STOPPED = "stopped", _("Stopped")

    BY_CHECKS = (Kind.RECHECK, Kind.BACKFILL)

    kind = models.CharField(max_length=8, choices=Kind.choices)
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    params = models.JSONField(default=dict)  # what it was started with: ids and numbers, no text
    result = models.JSONField(default=dict)  # figures, and names of what it made
    step = models.CharField(max_length=60, blank=True, default="")  # what it does just now
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)  # 0: nobody knows yet
    seconds_left = models.FloatField(null=True, blank=True)
    by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="jobs"
    )
    put_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)  # the last sign of life
    ended_at = models.DateTimeField(null=True, blank=True)
    token = models.UUIDField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)  # runs that were begun
    is_to_stop = models.BooleanField(default=False)
    failure = models.CharField(max_length=300, blank=True, default="")

    objects = JobQuerySet.as_manager()

    class Meta:
        permissions = [("start_job", "Can start and stop training, evaluation and rechecks")]
        constraints = [
            models.UniqueConstraint(
                fields=["kind"],
                condition=Q(state__in=["waiting", "running"]),
                name="job_one_of_a_kind_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "running"], ended_at__isnull=True)
                | (Q(state__in=["done", "failed", "stopped"]) & Q(ended_at__isnull=False)),
                name="job_ended_at_some_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}: {self.state}"

    @property
    def is_finished(self) -> bool:
        return self.ended_at is not None

    @property
    def is_by_checks(self) -> bool:
        """Whether those who check questions do it, and no worker for long work."""
        return self.kind in self.BY_CHECKS

    @property
    def waited(self) -> timedelta:
        """How long it waited before it began, so far, or until somebody ended it."""
        return (self.started_at or self.ended_at or timezone.now()) - self.put_at

    @property
    def took(self) -> timedelta | None:
        """How long it ran, or runs so far; None where it never began."""
        return (self.ended_at or timezone.now()) - self.started_at if self.started_at else None

    @property
    def percent(self) -> int | None:
        """How much of it is done; None where nobody knows yet."""
        return min(100, round(100 * self.done / self.total)) if self.total else None

    @property
    def told_failure(self) -> str:
        """Why it failed, in the reader's language as far as we have words for it."""
        said = self.result.get("said")
        return gettext(said) % self.result.get("details", {}) if said else self.failure
