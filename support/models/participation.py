from django.db import models
from django.utils import timezone


class Vote(models.Model):
    """A person who has this question too."""

    question = models.ForeignKey("support.Question", models.PROTECT, related_name="votes")
    by = models.ForeignKey("support.User", models.PROTECT, related_name="votes")
    voted_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["question", "by"], name="vote_once")]

    def __str__(self) -> str:
        return f"{self.by_id} for question {self.question_id}"


class AnswerVote(models.Model):
    """A person whom an answer helped."""

    answer = models.ForeignKey("support.Answer", models.PROTECT, related_name="votes")
    by = models.ForeignKey("support.User", models.PROTECT, related_name="answer_votes")
    voted_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["answer", "by"], name="answervote_once")]

    def __str__(self) -> str:
        return f"{self.by_id} for answer {self.answer_id}"


class Subscription(models.Model):
    """A person who hears of new answers."""

    question = models.ForeignKey("support.Question", models.PROTECT, related_name="subscriptions")
    subscriber = models.ForeignKey("support.User", models.PROTECT, related_name="subscriptions")
    subscribed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["question", "subscriber"], name="subscription_once")
        ]

    def __str__(self) -> str:
        return f"{self.subscriber_id} on question {self.question_id}"
