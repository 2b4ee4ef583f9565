"""What a release was found to be worth, at some time."""

from django.db import models
from django.utils import timezone

from dedup.models.release import Release


class Report(models.Model):
    """A release, measured; `figures` is all that its page shows (see dedup.ml.reporting)."""

    release = models.ForeignKey(Release, models.PROTECT, related_name="reports")
    against = models.ForeignKey(Release, models.PROTECT, null=True, blank=True, related_name="+")
    made_at = models.DateTimeField(default=timezone.now)
    figures = models.JSONField()  # numbers, names of releases, products and languages; no text
    folder = models.CharField(max_length=200, blank=True, default="")  # "" where none was written

    class Meta:
        indexes = [
            models.Index(fields=["release", "-made_at"], name="report_newest_of_release"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(against__isnull=True) | ~models.Q(against=models.F("release")),
                name="report_against_another",
            ),
        ]

    def __str__(self) -> str:
        return f"Report of release {self.release_id}, {self.made_at:%Y-%m-%d}"
