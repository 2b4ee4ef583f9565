from typing import Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone

from support.models.question import BODY_CHECKS, TITLE_CHECKS, Question
from support.models.user import User
from support.models.validators import LARGEST_TITLE


class GuestRequestQuerySet(models.QuerySet["GuestRequest"]):
    def unmailed(self) -> Self:
        """Requests whose confirming mail has not left."""
        return self.filter(mailed_at__isnull=True, confirmed_at__isnull=True)

    def of(self, person: User) -> Self:
        """What came from addresses that this person has shown to be theirs."""
        shown = person.emailaddress_set.filter(verified=True)  # type: ignore[attr-defined]
        return self.filter(email__in=shown.values(address=Lower("email")))


class GuestRequest(models.Model):
    """What somebody without an account wants, until their address is confirmed.

    Its texts are nobody's but the writer's: they go when it is confirmed, and the row leads a
    second click to the question until it is tidied away.
    """

    class Kind(models.TextChoices):
        QUESTION = "question", "Question"
        FOLLOW = "follow", "Following"

    email = models.EmailField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    product = models.ForeignKey(
        "support.Product", models.PROTECT, null=True, blank=True, related_name="guest_requests"
    )
    title = models.CharField(max_length=LARGEST_TITLE, blank=True, validators=TITLE_CHECKS)
    body = models.TextField(blank=True, validators=BODY_CHECKS)
    audience = models.CharField(
        max_length=7, choices=Question.Audience.choices, default=Question.Audience.PUBLIC
    )
    question = models.ForeignKey(
        "support.Question", models.PROTECT, null=True, blank=True, related_name="guest_requests"
    )
    mail_language = models.CharField(max_length=16, default="en")
    put_at = models.DateTimeField(default=timezone.now, db_index=True)
    mail_due_at = models.DateTimeField(default=timezone.now)
    mailed_at = models.DateTimeField(null=True, blank=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)

    objects = GuestRequestQuerySet.as_manager()

    class Meta:
        default_permissions = ()  # nobody's to administer
        constraints = [
            models.CheckConstraint(
                condition=Q(question__isnull=False)
                | (
                    Q(kind="question", product__isnull=False, confirmed_at__isnull=True)
                    & ~Q(title="")
                ),
                name="guestrequest_says_what",
            ),
            models.CheckConstraint(
                condition=Q(confirmed_at__isnull=True) | Q(title="", body=""),
                name="guestrequest_forgets_once_confirmed",
            ),
        ]
        indexes = [
            models.Index(
                fields=["mail_due_at"],
                condition=Q(mailed_at__isnull=True),
                name="guestrequest_unmailed",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
