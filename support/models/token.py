import hashlib
import secrets
from typing import Any, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def usable(self) -> Self:
        """Tokens that have not expired."""
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))

    def issue(self, *, user: models.Model, name: str, **given: Any) -> "tuple[ApiToken, str]":
        """Create a token; return it with its secret, which is shown this once and never stored."""
        secret = "ask_" + secrets.token_urlsafe(32)
        return self.create(user=user, name=name, digest=digest(secret), **given), secret


def digest(secret: str) -> str:
    """What is kept of a token: its sha256 (32 random bytes need no slow hash)."""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiToken(models.Model):
    """Lets a program act as a person, or only read as one."""

    class Scope(models.TextChoices):
        READ = "read", _("Read")
        WRITE = "write", _("Read and write")

    user = models.ForeignKey("support.User", models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    scope = models.CharField(
        max_length=5, choices=Scope.choices, default=Scope.WRITE, db_default=Scope.WRITE
    )
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class IdempotencyRecord(models.Model):
    """The answer that a write got, so that its repetition gets the same one."""

    user = models.ForeignKey("support.User", models.CASCADE, related_name="idempotency_records")
    key = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)  # of method, path and body
    status = models.PositiveSmallIntegerField(null=True)
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="idempotencyrecord_once")
        ]

    def __str__(self) -> str:
        return self.key
