from django.db import models
from django.db.models import Q
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


class AuditLink(models.Model):
    """Chains an entry to the one before it. Postgres writes it when the entry's transaction commits
    (see its migration), and refuses to change or delete it; till then all but `entry` is empty."""

    entry = models.OneToOneField(AuditEntry, models.PROTECT, primary_key=True, related_name="link")
    position = models.BigIntegerField(null=True, unique=True)  # 1, 2, 3, … without a gap
    previous = models.BinaryField(max_length=32, null=True)  # the hash of the link before
    hash = models.BinaryField(max_length=32, null=True)  # of `previous` and what the entry says

    class Meta:
        default_permissions = ()
        constraints = [
            models.CheckConstraint(
                condition=Q(position__isnull=True, previous__isnull=True, hash__isnull=True)
                | Q(position__gt=0, previous__isnull=False, hash__isnull=False),
                name="auditlink_is_whole",
            )
        ]

    def __str__(self) -> str:
        return f"{self.position} in the audit trail"


class AuditHead(models.Model):
    """The last link, in one row: shows where the end of the trail was taken out."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    position = models.BigIntegerField()
    hash = models.BinaryField(max_length=32)

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(condition=Q(id=1), name="audithead_is_one")]

    def __str__(self) -> str:
        return f"{self.position}:{bytes(self.hash).hex()}"
