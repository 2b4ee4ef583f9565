from typing import TYPE_CHECKING, Any, Self

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When
from django.db.models.functions import Coalesce
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from support.models.outbox import OutboxEntry
from support.models.validators import (
    LARGEST_BODY,
    LARGEST_TITLE,
    validate_characters,
    validate_visible,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from support.models.user import User

TITLE_CHECKS: list[Any] = [validate_characters, validate_visible]
BODY_CHECKS: list[Any] = [MaxLengthValidator(LARGEST_BODY), validate_characters]


class Product(models.Model):
    """What people ask about."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100, unique=True)
    description = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.name


class QuestionQuerySet(models.QuerySet["Question"]):
    def visible_to(self, user: "User | AnonymousUser") -> Self:
        """What `user` may read: public questions, their own, and all of them for agents.

        Every page, mail, export and suggestion goes through here.
        """
        if user.has_perm("support.view_private_question"):
            return self
        mine = Q(asked_by=user.pk) if user.is_authenticated else Q()
        return self.filter(Q(audience=Question.Audience.PUBLIC) | mine)

    def live(self) -> Self:
        """Questions that stand for themselves: not merged into another."""
        return self.filter(canonical__isnull=True)

    def written(self) -> Self:
        """Questions whose text is there: not those of people who had theirs erased."""
        return self.filter(asked_by__erased_at__isnull=True)

    def sound(self) -> Self:
        """Without questions whose own check failed while nothing else ran: who reads them beside
        another question may fail as well. They meet the others in a check of their own."""
        doubtful = OutboxEntry.objects.filter(
            question=OuterRef("pk"), settled_at=None, attempts__gt=0
        )
        return self.filter(~Exists(doubtful))

    def of_threads(self, *question_ids: int) -> Self:
        """All members of the threads in which these questions are."""
        roots = Question.objects.filter(pk__in=question_ids).values(
            root=Coalesce("canonical_id", "pk")
        )
        # A union is found by two indexes; for an OR of two subqueries all rows are read.
        duplicates = Question.objects.filter(canonical__in=roots).values("pk")
        return self.filter(pk__in=roots.union(duplicates, all=True))

    def with_answered(self) -> Self:
        """Annotate `answered`: whether anybody answered in the thread of a live question."""
        own = Exists(Answer.objects.filter(question=OuterRef("pk")))
        duplicates = Exists(Answer.objects.filter(question__canonical=OuterRef("pk")))
        # Each is found by an index; for an OR in one subquery all answers are read, for each row.
        return self.annotate(answered=own | duplicates)


class Question(models.Model):
    """A question as it was asked. A merge sets `canonical`; nothing else of it ever changes place.

    The two generated columns and the foreign key over them (first migration) make Postgres refuse
    a pointer at a question that is itself merged: the forest is flat whatever the code does.
    """

    class Audience(models.TextChoices):
        PUBLIC = "public", _("Public")
        PRIVATE = "private", _("Private")

    product = models.ForeignKey(Product, models.PROTECT, related_name="questions")
    title = models.CharField(max_length=LARGEST_TITLE, validators=TITLE_CHECKS)
    body = models.TextField(blank=True, validators=BODY_CHECKS)
    audience = models.CharField(
        max_length=7, choices=Audience.choices, default=Audience.PUBLIC, db_index=True
    )
    asked_by = models.ForeignKey("support.User", models.PROTECT, related_name="questions")
    asked_at = models.DateTimeField(default=timezone.now)
    edited_at = models.DateTimeField(null=True, blank=True)
    version = models.PositiveIntegerField(default=1)
    language = models.CharField(max_length=3, blank=True, default="", db_default="")
    source = models.CharField(max_length=200, null=True, blank=True, unique=True)
    canonical = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="duplicates"
    )
    is_root = models.GeneratedField(
        expression=Q(canonical__isnull=True),  # type: ignore[arg-type]
        output_field=models.BooleanField(),
        db_persist=True,
    )
    canonical_is_root = models.GeneratedField(
        expression=Case(
            When(canonical__isnull=True, then=Value(None)),
            default=Value(True),
            output_field=models.BooleanField(),
        ),
        output_field=models.BooleanField(null=True),
        db_persist=True,
    )
    words = models.GeneratedField(
        expression=SearchVector("title", weight="A", config="english")
        + SearchVector("body", weight="B", config="english"),
        output_field=SearchVectorField(),
        db_persist=True,
    )

    objects = QuestionQuerySet.as_manager()

    class Meta:
        permissions = [
            ("view_private_question", "Can read private questions"),
            ("merge_question", "Can merge and unmerge questions"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(canonical__isnull=True) | ~Q(canonical=F("pk")),
                name="question_not_its_own_canonical",
            ),
            models.UniqueConstraint(fields=["id", "is_root"], name="question_root_key"),
            models.CheckConstraint(condition=~Q(title=""), name="question_has_title"),
        ]
        indexes = [
            GinIndex(fields=["words"], name="question_words", fastupdate=False),
            models.Index(fields=["-asked_at", "-id"], name="question_newest"),
        ]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("question", args=[self.pk])

    @property
    def root_id(self) -> int:
        """The id of the question that stands for this one: its canonical, or itself."""
        return self.canonical_id or self.pk

    @property
    def is_private(self) -> bool:
        return self.audience == self.Audience.PRIVATE

    def has_same_readers_as(self, other: "Question") -> bool:
        """Whether exactly the same people may read both."""
        if self.audience != other.audience:
            return False
        return not self.is_private or self.asked_by_id == other.asked_by_id

    @property
    def order(self) -> tuple[Any, int]:
        """What decides which of two is the older: time asked, then id."""
        return (self.asked_at, self.pk)


class Answer(models.Model):
    """An answer, for ever on the question under which it was written."""

    question = models.ForeignKey(Question, models.PROTECT, related_name="answers")
    body = models.TextField(validators=[*BODY_CHECKS, validate_visible])
    written_by = models.ForeignKey("support.User", models.PROTECT, related_name="answers")
    written_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["question", "written_at"], name="answer_in_thread")]

    def __str__(self) -> str:
        return f"Answer {self.pk}"


class Acceptance(models.Model):
    """The asker of a question says which answer solved it."""

    question = models.OneToOneField(Question, models.PROTECT, related_name="acceptance")
    answer = models.ForeignKey(Answer, models.PROTECT, related_name="acceptances")
    accepted_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"Answer {self.answer_id} for question {self.question_id}"
