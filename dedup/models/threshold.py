"""Thresholds that people moved."""

from typing import Self

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dedup.models.release import Release


class ThresholdChangeQuerySet(models.QuerySet["ThresholdChange"]):
    def standing(self) -> Self:
        """Changes that were not taken back."""
        return self.filter(undone_at__isnull=True)

    def newest_first(self) -> Self:
        return self.order_by("-at", "-pk").select_related("release", "by", "undone_by")


class ThresholdChange(models.Model):
    """A threshold of a release that somebody moved, or that was moved back."""

    class Which(models.TextChoices):
        FLAG = "flag", _("Flag")
        SURE = "sure", _("Sure")
        SUGGEST = "suggest", _("Suggest")

    release = models.ForeignKey(Release, models.PROTECT, related_name="threshold_changes")
    which = models.CharField(max_length=7, choices=Which.choices)
    before = models.FloatField()
    after = models.FloatField()
    by = models.ForeignKey("support.User", models.PROTECT, related_name="threshold_changes")
    at = models.DateTimeField(default=timezone.now)
    reason = models.CharField(max_length=300, blank=True, default="")
    withdrawn = models.PositiveIntegerField(default=0)  # flags, at once
    put_back = models.PositiveIntegerField(default=0)  # questions, to be checked again
    undone_at = models.DateTimeField(null=True, blank=True)
    undone_by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="+"
    )

    objects = ThresholdChangeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(before__gt=0, before__lte=1, after__gt=0, after__lte=1),
                name="threshold_change_of_shares",
            ),
            models.CheckConstraint(
                condition=~Q(before=F("after")), name="threshold_change_moves_something"
            ),
            models.CheckConstraint(
                condition=Q(undone_at__isnull=True, undone_by__isnull=True)
                | Q(undone_at__isnull=False, undone_by__isnull=False),
                name="threshold_change_undone_by_somebody",
            ),
        ]
        indexes = [
            models.Index(fields=["release", "which", "-at"], name="threshold_change_in_order")
        ]

    def __str__(self) -> str:
        return f"{self.release_id}, {self.which}: {self.before:.3f} to {self.after:.3f}"
