"""Releases, and what they said of questions and pairs."""

from django.db import models
from django.db.models import Q, Value
from django.utils import timezone
from pgvector.django import HalfVectorField, HnswIndex

from dedup.ml.pairs import SettledBy

DIMENSIONS = 384


class Release(models.Model):
    """A trained scorer with its calibration and thresholds, ready for service."""

    name = models.CharField(max_length=100, unique=True)
    fingerprint = models.CharField(max_length=64, unique=True)
    embedding_fingerprint = models.CharField(max_length=64)
    threshold = models.FloatField()  # lowest probability that is flagged
    suggestion_floor = models.FloatField()  # see dedup.reranking
    sure_threshold = models.FloatField()  # from here on it is worded more surely
    manifest = models.JSONField(default=dict)
    added_at = models.DateTimeField(default=timezone.now)
    is_active = models.BooleanField(default=False)
    activated_at = models.DateTimeField(null=True, blank=True)
    activated_by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="activated_releases"
    )
    previous = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="+")
    # Since when it judges what the active one judges, and nothing comes of it.
    shadow_since = models.DateTimeField(null=True, blank=True)
    # Why it is in service though a gate was shut.
    overruled = models.CharField(max_length=500, blank=True, default="", db_default="")

    class Meta:
        permissions = [("activate_release", "Can activate and roll back releases")]
        constraints = [
            models.UniqueConstraint(
                fields=["is_active"], condition=Q(is_active=True), name="release_one_active"
            ),
            models.UniqueConstraint(
                Value(1), condition=Q(shadow_since__isnull=False), name="release_one_shadow"
            ),
            models.CheckConstraint(
                condition=Q(is_active=False) | Q(shadow_since__isnull=True),
                name="release_active_or_shadow",
            ),
            models.CheckConstraint(
                condition=Q(threshold__gt=0, threshold__lte=1), name="release_threshold_is_share"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def languages(self) -> set[str]:
        """ISO 639 codes of the languages that it was evaluated in."""
        return set(self.manifest.get("languages", ["en"]))


class Embedding(models.Model):
    """A question as a point: the bi-encoder's unit vector of its model input."""

    question = models.OneToOneField(
        "support.Question", models.PROTECT, primary_key=True, related_name="embedding"
    )
    vector = HalfVectorField(dimensions=DIMENSIONS)
    text_hash = models.CharField(max_length=64)
    fingerprint = models.CharField(max_length=64)  # of the bi-encoder that made it
    embedded_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            HnswIndex(
                name="embedding_hnsw",
                fields=["vector"],
                m=16,
                ef_construction=64,
                opclasses=["halfvec_cosine_ops"],
            )
        ]

    def __str__(self) -> str:
        return f"Embedding of question {self.question_id}"


class Score(models.Model):
    """What one release said of one pair of texts; also the cache of it."""

    older = models.ForeignKey("support.Question", models.PROTECT, related_name="scores_as_older")
    newer = models.ForeignKey("support.Question", models.PROTECT, related_name="scores_as_newer")
    older_hash = models.CharField(max_length=64)
    newer_hash = models.CharField(max_length=64)
    release = models.ForeignKey(Release, models.PROTECT, related_name="scores")
    logit = models.FloatField(null=True, blank=True)  # null: the pair was not read
    cosine = models.FloatField()
    probability = models.FloatField()
    settled_by = models.CharField(
        max_length=13,
        choices=[(who.value, who.value) for who in SettledBy],
        default=SettledBy.CROSS_ENCODER.value,
        db_default=SettledBy.CROSS_ENCODER.value,
    )
    scored_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["older", "newer", "release"], name="score_once_per_pair_and_release"
            ),
            models.CheckConstraint(
                condition=Q(probability__gte=0, probability__lte=1),
                name="score_probability_is_share",
            ),
            models.CheckConstraint(
                condition=Q(settled_by=SettledBy.CROSS_ENCODER.value, logit__isnull=False)
                | (~Q(settled_by=SettledBy.CROSS_ENCODER.value) & Q(logit__isnull=True)),
                name="score_logit_where_cross_encoder_read",
            ),
        ]
        indexes = [
            models.Index(  # see dedup.replaying and dedup.moving
                fields=["release", "newer"],
                include=["older", "probability"],
                condition=Q(probability__gte=0.004),
                name="score_likely",
            ),
            models.Index(fields=["release", "scored_at"], name="score_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.older_id} and {self.newer_id}: {self.probability:.2f}"
