from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Notification(models.Model):
    """A mail that one person is to get. It leaves after the commit, once, or shows as unknown."""

    class Kind(models.TextChoices):
        ANSWER = "answer", _("New answer")
        ACCEPTED = "accepted", _("Answer accepted")
        MERGED = "merged", _("Questions merged")

    class Status(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        SENDING = "sending", _("Being sent")
        SENT = "sent", _("Sent")
        UNKNOWN = "unknown", _("Perhaps sent")
        REFUSED = "refused", _("Refused by the mail server")
        CANCELLED = "cancelled", _("Not needed any more")

    kind = models.CharField(max_length=8, choices=Kind.choices)
    recipient = models.ForeignKey("support.User", models.PROTECT, related_name="notifications")
    question = models.ForeignKey("support.Question", models.PROTECT, related_name="notifications")
    answer = models.ForeignKey(
        "support.Answer", models.PROTECT, null=True, blank=True, related_name="notifications"
    )
    merge = models.ForeignKey(
        "support.Merge", models.PROTECT, null=True, blank=True, related_name="notifications"
    )
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.WAITING)
    due_at = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)  # put off by the server

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["recipient", "merge"],
                condition=Q(merge__isnull=False),
                name="notification_once_per_merge",
            ),
            models.UniqueConstraint(
                fields=["recipient", "answer", "kind"],
                condition=Q(answer__isnull=False),
                name="notification_once_per_answer",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(status="waiting"), name="notification_due")
        ]

    def __str__(self) -> str:
        return f"{self.kind} for {self.recipient_id}"
