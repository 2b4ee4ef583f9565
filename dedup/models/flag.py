"""Pairs that wait for a reviewer, or did."""

import functools
import operator
from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When, Window
from django.db.models.functions import Coalesce, Greatest, Least, RowNumber
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dedup.models.release import Release
from support.models import Merge, Question


class FlagQuerySet(models.QuerySet["Flag"]):
    def open(self) -> Self:
        return self.filter(status=Flag.Status.OPEN)

    def flagged(self) -> Self:
        """Those at or above the threshold: not what is asked about without its score."""
        return self.filter(lane=Flag.Lane.FLAGGED)

    def unhidden(self) -> Self:
        """Without those whose score nobody is to see before they are decided."""
        return self.exclude(status=Flag.Status.OPEN, lane__in=Flag.BLIND)

    def with_roots(self) -> Self:
        """Annotate `low` and `high`: the ids of the two live threads, smaller first."""
        older = Coalesce("older__canonical_id", "older_id")
        newer = Coalesce("newer__canonical_id", "newer_id")
        return self.annotate(low=Least(older, newer), high=Greatest(older, newer))

    def awake(self, now: datetime) -> Self:
        """Without those that sleep until a time, or until enough others like them have come."""
        asleep = Q(snoozed_until__gt=now) & (Q(snoozed_left__isnull=True) | Q(snoozed_left__gt=0))
        return self.exclude(asleep)

    def across_threads(self) -> Self:
        """Flags whose two questions are not in one thread already, or whose merge is disputed."""
        return self.with_roots().filter(~Q(low=F("high")) | Q(disputed_at__isnull=False))

    def between_single(self) -> Self:
        """Flags between two live questions that nothing was merged into."""
        ends = ("older", "newer")
        merged_into = (Exists(Question.objects.filter(canonical=OuterRef(end))) for end in ends)
        single = self.with_roots().filter(older__canonical=None, newer__canonical=None)
        return single.exclude(functools.reduce(operator.or_, merged_into))

    def one_per_threads(self) -> Self:
        """Open flags that nobody is asked about blindly: of those between the same two live
        threads, only the likeliest.

        Each disputed merge is a case of its own, though all its questions are in one thread.
        Between two threads of one question each there is but one flag, so only others are ranked.
        """
        merged = Q(older__canonical__isnull=False) | Q(newer__canonical__isnull=False)
        merged_into = (
            Exists(Question.objects.filter(canonical=OuterRef(end))) for end in ("older", "newer")
        )
        own = Case(When(low=F("high"), then=F("pk")), default=Value(0))
        rank = Window(
            RowNumber(),
            partition_by=[F("low"), F("high"), own],
            order_by=[F("probability").desc(), F("pk").asc()],
        )
        queued = Flag.objects.open().flagged().across_threads()
        ranked = queued.filter(functools.reduce(operator.or_, merged_into, merged))
        behind = ranked.annotate(rank=rank).filter(rank__gt=1)
        return self.open().flagged().across_threads().exclude(pk__in=behind.values("pk"))

    def in_queue_order(self) -> Self:
        """Likeliest duplicates first; the key makes paging stable."""
        return self.order_by("-probability", "pk").select_related(
            "older__product", "newer__product", "release"
        )

    def to_merge(self) -> Self:
        """Confirmed pairs of the same readers, that nobody with the right to merge has merged."""
        same_readers = Q(older__audience="public", newer__audience="public") | Q(
            older__audience="private",
            newer__audience="private",
            older__asked_by=F("newer__asked_by"),
        )
        return (
            self.with_roots()
            .filter(same_readers, ~Q(low=F("high")), status=Flag.Status.CONFIRMED)
            .order_by("decided_at", "pk")
            .select_related("older__product", "newer__product")
        )

    def to_unmerge(self) -> Self:
        """Disputed merges that an agent found wrong, and nobody with the right has taken back."""
        edges = Merge.objects.in_force().filter(
            Q(duplicate=OuterRef("older"), canonical=OuterRef("newer"))
            | Q(duplicate=OuterRef("newer"), canonical=OuterRef("older"))
        )
        parted = (Flag.Status.DISMISSED, Flag.Status.RELATED)
        return (
            self.filter(Exists(edges), status__in=parted, disputed_at__isnull=False)
            .order_by("decided_at", "pk")
            .select_related("older__product", "newer__product")
        )


class Flag(models.Model):
    """Two questions that may be one, waiting for a reviewer. One row for each pair, for ever.

    A dismissed flag is a cannot-link: no check and no release opens it again while both texts
    stay as they were judged.
    """

    class Status(models.TextChoices):
        OPEN = "open", _("Open")
        CONFIRMED = "confirmed", _("Duplicate")
        DISMISSED = "dismissed", _("Not a duplicate")
        RELATED = "related", _("Related")
        WITHDRAWN = "withdrawn", _("No longer likely")

    class Lane(models.TextChoices):
        """How a pair came to be asked about."""

        FLAGGED = "flagged", _("At or above the threshold")
        SAMPLED = "sampled", _("Drawn from below the threshold")
        CHOSEN = "chosen", _("Chosen to learn from")

    BLIND = (Lane.SAMPLED, Lane.CHOSEN)  # decided without their score

    older = models.ForeignKey("support.Question", models.PROTECT, related_name="flags_as_older")
    newer = models.ForeignKey("support.Question", models.PROTECT, related_name="flags_as_newer")
    older_hash = models.CharField(max_length=64)
    newer_hash = models.CharField(max_length=64)
    probability = models.FloatField()
    lane = models.CharField(
        max_length=8, choices=Lane.choices, default=Lane.FLAGGED, db_default=Lane.FLAGGED
    )
    # How probable it was that this pair is asked about. None: it was chosen, or people asked, not
    # the machine; nothing is ever estimated from it.
    asked_share = models.FloatField(null=True, blank=True, default=1.0, db_default=1.0)
    # Words that mean each other, in the texts that the hashes are of: see AlignedWords, in order.
    alignment = models.JSONField(null=True, blank=True)
    release = models.ForeignKey(Release, models.PROTECT, related_name="flags")
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.OPEN)
    flagged_at = models.DateTimeField(default=timezone.now)
    decided_at = models.DateTimeField(null=True, blank=True)
    claimed_by = models.ForeignKey(
        "support.User", models.SET_NULL, null=True, blank=True, related_name="claimed_flags"
    )
    claimed_until = models.DateTimeField(null=True, blank=True)
    snoozed_until = models.DateTimeField(null=True, blank=True)
    snoozed_left = models.PositiveSmallIntegerField(null=True, blank=True)  # flags
    unsure_by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="unsure_flags"
    )
    unsure_at = models.DateTimeField(null=True, blank=True)
    # Why somebody wants a second opinion.
    unsure = models.CharField(max_length=500, blank=True, default="", db_default="")
    disputed_by = models.ForeignKey(
        "support.User", models.PROTECT, null=True, blank=True, related_name="disputed_flags"
    )
    disputed_at = models.DateTimeField(null=True, blank=True)
    dispute = models.CharField(max_length=500, blank=True)  # why the asker says "mine is different"

    objects = FlagQuerySet.as_manager()

    class Meta:
        permissions = [("review_flag", "Can review flagged duplicates")]
        constraints = [
            models.UniqueConstraint(
                Least("older", "newer"), Greatest("older", "newer"), name="flag_once_per_pair"
            ),
            models.CheckConstraint(condition=~Q(older=F("newer")), name="flag_joins_two_questions"),
            models.CheckConstraint(
                condition=Q(asked_share__gt=0, asked_share__lte=1), name="flag_asked_share_is_share"
            ),
            models.CheckConstraint(
                condition=Q(snoozed_left__isnull=True) | Q(snoozed_until__isnull=False),
                name="flag_snoozed_for_some_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["-probability", "id"], condition=Q(status="open"), name="flag_queue"
            )
        ]

    def __str__(self) -> str:
        return f"{self.older_id} and {self.newer_id}"

    @property
    def unevaluated_languages(self) -> list[str]:
        """Languages of its questions in which nobody knows what the probability is worth."""
        return sorted({self.older.language, self.newer.language} - {"", *self.release.languages})

    @property
    def is_blind(self) -> bool:
        """Whether it is to be decided without its score."""
        return self.status == self.Status.OPEN and self.lane in self.BLIND

    @property
    def known_probability(self) -> float | None:
        """The probability, where the release was evaluated in the languages of both questions."""
        return None if self.unevaluated_languages else self.probability

    @property
    def question_ids(self) -> tuple[int, int]:
        return self.older_id, self.newer_id

    @property
    def band(self) -> str:
        """How likely they are the same, by the release: likely, perhaps or hardly."""
        if self.probability >= self.release.sure_threshold:
            return "likely"
        return "perhaps" if self.probability >= self.release.threshold else "hardly"
