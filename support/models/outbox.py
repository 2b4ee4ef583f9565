from typing import Self

from django.db import models
from django.db.models import Q
from django.utils import timezone


class OutboxQuerySet(models.QuerySet["OutboxEntry"]):
    def waiting(self) -> Self:
        """Entries whose question has not been checked as it now stands, and still will be."""
        return self.filter(settled_at__isnull=True, quarantined_at__isnull=True)

    def quarantined(self) -> Self:
        """Entries that a person must look at: their check failed three times while alone."""
        return self.filter(quarantined_at__isnull=False)

    def unchecked(self) -> Self:
        """Waiting or quarantined: nobody knows whether these questions have duplicates."""
        return self.filter(settled_at__isnull=True)


class OutboxEntry(models.Model):
    """The check that a question waits for, or had. One row for each question, renewed by an edit.

    `token` names the claim that may settle it. An edit clears the token, so that a worker which
    read the older text writes nothing.
    """

    question = models.OneToOneField("support.Question", models.PROTECT, related_name="outbox_entry")
    put_at = models.DateTimeField(default=timezone.now)
    token = models.UUIDField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    is_suspect = models.BooleanField(default=False)  # a check with it failed: it now runs alone
    is_alone = models.BooleanField(default=False)  # the claim in progress has no other question
    attempts = models.PositiveSmallIntegerField(default=0)  # failures while alone
    settled_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    failure = models.CharField(max_length=200, blank=True)  # the kind of error, never text

    objects = OutboxQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["is_suspect", "put_at"],
                condition=Q(settled_at__isnull=True, quarantined_at__isnull=True),
                name="outbox_waiting",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(settled_at__isnull=True) | Q(quarantined_at__isnull=True),
                name="outboxentry_settled_or_quarantined",
            )
        ]

    def __str__(self) -> str:
        return f"Check of question {self.question_id}"
