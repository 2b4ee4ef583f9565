from django.db import models
from django.utils import timezone


class Draft(models.Model):
    """A text that somebody is writing, for the worker to find similar questions for.

    Kept in an unlogged table and for a minute at most: a draft may be private. The broker carries
    only its random id.
    """

    id = models.UUIDField(primary_key=True)
    text = models.TextField()
    reader = models.ForeignKey("support.User", models.CASCADE, null=True, related_name="+")
    product = models.ForeignKey("support.Product", models.CASCADE, null=True, related_name="+")
    limit = models.PositiveSmallIntegerField(default=5)
    put_at = models.DateTimeField(default=timezone.now)
    only_likely = models.BooleanField(default=True, db_default=True)  # else all that is near
    near = models.JSONField(null=True)  # ids by vectors and words, as soon as they are known
    found = models.JSONField(null=True)  # ids once the nearest were reranked, likeliest first

    def __str__(self) -> str:
        return str(self.id)
