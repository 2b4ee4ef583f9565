import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Deflection(models.Model):
    """One time that somebody began to ask and was shown similar questions, and what came of it.

    Times and ids only: nothing of what was typed, nor which questions were shown or opened.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    product = models.ForeignKey(
        "support.Product", models.SET_NULL, null=True, blank=True, related_name="+"
    )
    asker = models.ForeignKey(  # none where somebody has no account
        "support.User", models.SET_NULL, null=True, blank=True, related_name="deflections"
    )
    begun_at = models.DateTimeField(default=timezone.now)
    shown = models.PositiveSmallIntegerField()  # the most at once
    opened_at = models.DateTimeField(null=True, blank=True)
    solved_at = models.DateTimeField(null=True, blank=True)
    solved_question = models.ForeignKey(
        "support.Question", models.PROTECT, null=True, blank=True, related_name="deflections"
    )
    asked_at = models.DateTimeField(null=True, blank=True)
    asked_question = models.ForeignKey(
        "support.Question", models.PROTECT, null=True, blank=True, related_name="asked_in_spite"
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(shown__gt=0), name="deflection_shown_something"),
            models.CheckConstraint(
                condition=Q(solved_question=None) | Q(solved_at__isnull=False),
                name="deflection_solved_at_some_time",
            ),
            models.CheckConstraint(
                condition=Q(asked_question=None) | Q(asked_at__isnull=False),
                name="deflection_asked_at_some_time",
            ),
        ]
        indexes = [
            models.Index(fields=["begun_at"], name="deflection_by_time"),
            models.Index(
                fields=["asker", "solved_at"],
                condition=Q(solved_at__isnull=False),
                name="deflection_solved_of_asker",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)
