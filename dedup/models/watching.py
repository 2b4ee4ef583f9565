"""What is watched: how long stages take, what scores looked like at first, bounds crossed."""

from typing import Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from dedup.models.release import Release


class StageTime(models.Model):
    """How often a stage took about so long within an hour: one bar of that hour's histogram."""

    class Stage(models.TextChoices):
        """The first ten are times; of the others it is counted how often they came about."""

        CLAIM = "claim", _("Claimed")
        EMBED = "embed", _("Embedded")
        SHORTLIST = "shortlist", _("Shortlisted")
        SCORE = "score", _("Scored")
        ALIGN = "align", _("Words aligned")
        WRITE = "write", _("Written")
        WAITED = "waited", _("From asking to checked")
        SUGGEST_SCORES = "suggest_scores", _("Suggestions by scores")
        SUGGEST_MEANING = "suggest_meaning", _("Suggestions by meaning")
        SUGGEST_WORDS = "suggest_words", _("Suggestions by words alone")
        UNALIGNED = "unaligned", _("Checks without aligned words")
        FAILED = "failed", _("Batches that failed")
        WATCH = "watch", _("Looks at the bounds")

    hour = models.DateTimeField()
    stage = models.CharField(max_length=15, choices=Stage.choices)
    bucket = models.PositiveSmallIntegerField()  # see dedup.timing
    count = models.PositiveIntegerField()
    last_at = models.DateTimeField()  # of the newest of them

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["hour", "stage", "bucket"], name="stagetime_once"),
            models.CheckConstraint(condition=Q(count__gt=0), name="stagetime_counts_something"),
        ]

    def __str__(self) -> str:
        return f"{self.stage} at {self.hour:%Y-%m-%d %H:00}"


class Worker(models.Model):
    """A worker that gave a sign of life, by its name and the queues that it serves."""

    name = models.CharField(max_length=150, unique=True)
    queues = ArrayField(models.CharField(max_length=30))
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Baseline(models.Model):
    """What a release's scores looked like when it was new: what later ones are held against.

    `edges` cut them into parts of equal size; `counts` says by segment how many lay in each part.
    """

    class Measure(models.TextChoices):
        PROBABILITY = "probability", _("Probability")
        COSINE = "cosine", _("Cosine")

    release = models.ForeignKey(Release, models.CASCADE, related_name="baselines")
    measure = models.CharField(max_length=11, choices=Measure.choices)
    edges = ArrayField(models.FloatField())
    counts = models.JSONField()  # segment -> how many scores in each part
    questions = models.JSONField()  # segment -> of how many questions
    begins_at = models.DateTimeField()
    ends_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["release", "measure"], name="baseline_once"),
            models.CheckConstraint(
                condition=Q(ends_at__gte=models.F("begins_at")), name="baseline_ends_after_it_began"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.measure} of {self.release_id}"


class AlertQuerySet(models.QuerySet["Alert"]):
    def open(self) -> Self:
        return self.filter(closed_at__isnull=True)


class Alert(models.Model):
    """A bound that was crossed. Opened once, closed when it is over: nobody is told twice."""

    class Rule(models.TextChoices):
        UNCHECKED = "unchecked", _("Questions wait long for their check")
        QUARANTINED = "quarantined", _("Questions in quarantine")
        NO_WORKER = "no_worker", _("No worker that checks was seen")
        SLOW_CHECK = "slow_check", _("Checks are slow")
        WORDS_ALONE = "words_alone", _("Suggestions by words alone")
        DRIFT = "drift", _("Scores look otherwise than at first")
        ACCEPTANCE = "acceptance", _("Fewer flags are confirmed than before")

    rule = models.CharField(max_length=11, choices=Rule.choices)
    subject = models.CharField(max_length=60, blank=True)  # a segment; "" for all
    value = models.FloatField()  # when it was opened
    worst = models.FloatField()  # the farthest from the bound since then
    bound = models.FloatField()
    opened_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True, blank=True)

    objects = AlertQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "subject"],
                condition=Q(closed_at__isnull=True),
                name="alert_open_once",
            ),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True) | Q(closed_at__gte=models.F("opened_at")),
                name="alert_closed_after_it_opened",
            ),
        ]
        indexes = [models.Index(fields=["-opened_at"], name="alert_newest")]

    def __str__(self) -> str:
        return f"{self.rule} {self.subject}".strip()


class Delivery(models.Model):
    """One message about an alert, by mail or to a webhook, and how far it came."""

    class Channel(models.TextChoices):
        MAIL = "mail", _("Mail")
        WEBHOOK = "webhook", _("Webhook")

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        SENT = "sent", _("Sent")
        FAILED = "failed", _("Given up")

    alert = models.ForeignKey(Alert, models.CASCADE, related_name="deliveries")
    is_over = models.BooleanField()  # says that it is over, not that it began
    channel = models.CharField(max_length=7, choices=Channel.choices)
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    put_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=timezone.now)
    tried_at = models.DateTimeField(null=True, blank=True)
    said = models.CharField(max_length=100, blank=True)  # the last status, or the kind of error

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["alert", "is_over", "channel"], name="delivery_once"),
            models.CheckConstraint(
                condition=~Q(state="sent") | Q(tried_at__isnull=False),
                name="delivery_sent_was_tried",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(state="waiting"), name="delivery_due")
        ]

    def __str__(self) -> str:
        return f"{self.channel} about alert {self.alert_id}"
