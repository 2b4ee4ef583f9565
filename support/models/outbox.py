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

    def live(self) -> Self:
        """Entries that somebody waits for: their question is new, or reads otherwise now."""
        return self.filter(is_background=False)

    def unchecked(self) -> Self:
        """Waiting or quarantined, and never checked as they now stand: nobody knows whether these
        questions have duplicates."""
        return self.filter(settled_at__isnull=True, checked_by="")


class OutboxEntry(models.Model):
    """The check that a question waits for, or had. One row for each question, renewed by an edit.

    `token` names the claim that may settle it. An edit clears the token, so that a worker which
    read the older text writes nothing. Nobody waits for an entry in the background: it is claimed
    where no other can be.
    """

    question = models.OneToOneField("support.Question", models.PROTECT, related_name="outbox_entry")
    put_at = models.DateTimeField(default=timezone.now)
    token = models.UUIDField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    is_background = models.BooleanField(default=False, db_default=False)
    is_suspect = models.BooleanField(default=False)  # a check with it failed: it now runs alone
    is_alone = models.BooleanField(default=False)  # the claim in progress has no other question
    attempts = models.PositiveSmallIntegerField(default=0)  # failures while alone
    settled_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    failure = models.CharField(max_length=200, blank=True)  # the kind of error, never text
    # The release that last checked the text as it now stands (its fingerprint); "": none did.
    checked_by = models.CharField(max_length=64, blank=True, default="", db_default="")

    objects = OutboxQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["is_background", "is_suspect", "put_at", "id"],
                condition=Q(settled_at__isnull=True, quarantined_at__isnull=True),
                name="outbox_in_turn",
            ),
            models.Index(
                fields=["leased_until"],
                condition=Q(leased_until__isnull=False),
                name="outbox_leased",
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
