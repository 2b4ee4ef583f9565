import uuid
from typing import Self

from django.db import models
from django.db.models import F, Q
from django.utils import timezone


class MergeQuerySet(models.QuerySet["Merge"]):
    def in_force(self) -> Self:
        return self.filter(undone_at__isnull=True)


class Merge(models.Model):
    """An edge: `duplicate` went into `canonical`. It is kept after it was undone.

    Edges in force are the truth; `Question.canonical` is always the root that they lead to.
    """

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    duplicate = models.ForeignKey(
        "support.Question", models.PROTECT, related_name="merges_as_duplicate"
    )
    canonical = models.ForeignKey(
        "support.Question", models.PROTECT, related_name="merges_as_canonical"
    )
    merged_by = models.ForeignKey("support.User", models.PROTECT, related_name="merges")
    merged_at = models.DateTimeField(default=timezone.now)
    reason = models.CharField(max_length=500, blank=True)
    probability = models.FloatField(null=True, blank=True)  # what led to it, as plain values
    release = models.CharField(max_length=100, blank=True)
    undone_by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="undone_merges"
    )
    undone_at = models.DateTimeField(null=True, blank=True)

    objects = MergeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["duplicate"],
                condition=Q(undone_at__isnull=True),
                name="merge_one_in_force_per_duplicate",
            ),
            models.CheckConstraint(
                condition=~Q(duplicate=F("canonical")), name="merge_joins_two_questions"
            ),
            models.CheckConstraint(
                condition=Q(undone_by__isnull=True, undone_at__isnull=True)
                | Q(undone_by__isnull=False, undone_at__isnull=False),
                name="merge_undone_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.duplicate_id} into {self.canonical_id}"

    @property
    def is_in_force(self) -> bool:
        return self.undone_at is None
