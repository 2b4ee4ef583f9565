from django.db import models
from django.utils import timezone


class MailStop(models.Model):
    """A person who wants no mail about a question, until they follow it again."""

    person = models.ForeignKey("support.User", models.CASCADE, related_name="mail_stops")
    question = models.ForeignKey("support.Question", models.PROTECT, related_name="mail_stops")
    stopped_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["person", "question"], name="mailstop_once")]

    def __str__(self) -> str:
        return f"{self.person_id} about question {self.question_id}"


class InboundMail(models.Model):
    """A mail that came in and what became of it, each once. Nothing of what it says is here."""

    class Outcome(models.TextChoices):
        POSTED = "posted", "Became an answer"
        EMPTY = "empty", "Said nothing of its own"
        AUTOMATIC = "automatic", "Written by a machine"
        REFUSED = "refused", "Not from who may answer there"
        TOO_MANY = "too_many", "More than one person may send"
        UNREADABLE = "unreadable", "Could not be read"

    message_hash = models.CharField(max_length=64)
    received_at = models.DateTimeField(default=timezone.now)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    answer = models.OneToOneField(
        "support.Answer", models.PROTECT, null=True, blank=True, related_name="inbound_mail"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["message_hash"], name="inboundmail_once"),
            models.CheckConstraint(
                condition=models.Q(outcome="posted", answer__isnull=False)
                | models.Q(~models.Q(outcome="posted"), answer__isnull=True),
                name="inboundmail_answer_if_posted",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} at {self.received_at:%Y-%m-%d %H:%M}"
