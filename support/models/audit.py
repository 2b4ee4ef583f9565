from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """Who did what, when. A trigger refuses to change or delete a row. Ids only, never text."""

    at = models.DateTimeField(default=timezone.now)
    by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="audit_entries"
    )
    action = models.CharField(max_length=40)
    question = models.ForeignKey(
        "support.Question", models.PROTECT, null=True, blank=True, related_name="history"
    )
    details = models.JSONField(default=dict)

    class Meta:
        indexes = [models.Index(fields=["question", "at"], name="audit_of_question")]

    def __str__(self) -> str:
        return f"{self.action} at {self.at:%Y-%m-%d %H:%M}"
