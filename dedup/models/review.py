"""What people said of flags."""

from typing import Self

from django.db import models
from django.utils import timezone

from dedup.models.flag import Flag


class ReviewQuerySet(models.QuerySet["Review"]):
    def standing(self) -> Self:
        """Reviews that were not taken back."""
        return self.filter(undone_at__isnull=True)


class Review(models.Model):
    """What one person said of a flag, with the texts and the release as they were then."""

    class Verdict(models.TextChoices):
        CONFIRMED = "confirmed", "Duplicate"
        DISMISSED = "dismissed", "Not a duplicate"
        SKIPPED = "skipped", "Skipped"

    flag = models.ForeignKey(Flag, models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=9, choices=Verdict.choices)
    by = models.ForeignKey("support.User", models.PROTECT, related_name="reviews")
    reviewed_at = models.DateTimeField(default=timezone.now)
    canonical = models.ForeignKey(
        "support.Question",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="reviews_as_canonical",
    )
    merge = models.ForeignKey(
        "support.Merge", models.PROTECT, null=True, blank=True, related_name="reviews"
    )
    probability = models.FloatField()
    release = models.CharField(max_length=100)
    older_hash = models.CharField(max_length=64)
    newer_hash = models.CharField(max_length=64)
    undone_at = models.DateTimeField(null=True, blank=True)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["by", "-reviewed_at"], name="review_of_person")]

    def __str__(self) -> str:
        return f"{self.verdict} by {self.by_id}"
