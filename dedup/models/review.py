"""What people said of flags."""

from typing import Self

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dedup.models.flag import Flag


class ReviewQuerySet(models.QuerySet["Review"]):
    def standing(self) -> Self:
        """Reviews that were not taken back."""
        return self.filter(undone_at__isnull=True)


class Review(models.Model):
    """What one person said of a flag, with the texts and the release as they were then."""

    class Verdict(models.TextChoices):
        CONFIRMED = "confirmed", _("Duplicate")
        DISMISSED = "dismissed", _("Not a duplicate")
        RELATED = "related", _("Related, not the same")
        SKIPPED = "skipped", _("Skipped")
        SNOOZED = "snoozed", _("Later")
        UNSURE = "unsure", _("Second opinion wanted")

    DECISIONS = (Verdict.CONFIRMED, Verdict.DISMISSED, Verdict.RELATED)

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
    note = models.CharField(max_length=500, blank=True, default="", db_default="")
    batch = models.UUIDField(null=True, blank=True)  # decided together: taken back together
    probability = models.FloatField()
    release = models.CharField(max_length=100)
    older_hash = models.CharField(max_length=64)
    newer_hash = models.CharField(max_length=64)
    undone_at = models.DateTimeField(null=True, blank=True)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["by", "-reviewed_at"], name="review_of_person"),
            models.Index(
                fields=["batch"], condition=models.Q(batch__isnull=False), name="review_batch"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} by {self.by_id}"


class BlindItem(models.Model):
    """A decided pair, shown to another person without its score. What they say changes no decision.

    It tells how often people agree with what was decided, and with each other.
    """

    flag = models.ForeignKey(Flag, models.PROTECT, related_name="blind_items")
    by = models.ForeignKey("support.User", models.PROTECT, related_name="blind_items")
    asked_share = models.FloatField()  # how probable it was that this pair is asked
    expected = models.CharField(max_length=9, choices=Review.Verdict.choices)  # what stood then
    drawn_at = models.DateTimeField(default=timezone.now)
    verdict = models.CharField(max_length=9, choices=Review.Verdict.choices, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["flag", "by"], name="blinditem_once_per_person"),
            models.CheckConstraint(
                condition=models.Q(asked_share__gt=0, asked_share__lte=1),
                name="blinditem_asked_share_is_share",
            ),
            models.CheckConstraint(
                condition=models.Q(verdict="", decided_at__isnull=True)
                | (~models.Q(verdict="") & models.Q(decided_at__isnull=False)),
                name="blinditem_decided_at_some_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.flag_id} for {self.by_id}"

    @property
    def agrees(self) -> bool:
        """Whether the answer is of the same kind as what stood: duplicate or not."""
        is_decided = self.verdict in Review.DECISIONS
        confirmed = Review.Verdict.CONFIRMED
        return is_decided and (self.verdict == confirmed) == (self.expected == confirmed)


class SavedView(models.Model):
    """A filter of the review queue, under a name; its owner's, or everybody's."""

    name = models.CharField(max_length=60)
    query = models.CharField(max_length=300)  # as it stands in the address
    owner = models.ForeignKey("support.User", models.CASCADE, related_name="saved_views")
    is_shared = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="savedview_once_per_name")
        ]

    def __str__(self) -> str:
        return self.name
