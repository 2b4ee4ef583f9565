from django.db import models


class Usage(models.Model):
    """How often somebody did a thing in the present stretch of time."""

    name = models.CharField(max_length=30)  # of the quota
    spender = models.CharField(max_length=64)
    begun_at = models.DateTimeField()
    used = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "spender"], name="usage_once_per_spender")
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.used}"
