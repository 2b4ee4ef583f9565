"""What a merge would do, and what taking one back would, before anybody does it. Writes nothing."""

from collections.abc import Collection
from dataclasses import dataclass, field

from support import merging, notifications, thread
from support.merging import MergeRefused
from support.models import Answer, Merge, Question, Subscription, User, Vote
from support.models.question import QuestionQuerySet
from support.thread import Thread


@dataclass(frozen=True)
class Follower:
    """Somebody who would follow the one thread, and what they would newly find in it."""

    person: User
    is_of_duplicate: bool
    is_of_canonical: bool
    new_answers: int
    is_mailed: bool


@dataclass(frozen=True)
class MergePreview:
    """What merging would do."""

    duplicate: Question
    canonical: Question
    closes: list[Question]  # the duplicate and what was merged into it before
    thread: Thread | None  # as readers would find it; None where the two can never be one
    followers: list[Follower]
    mailed: list[User]
    refusal: str = ""  # why it cannot be done; empty where it can
    code: str = ""
    versions: dict[int, int] = field(default_factory=dict)


def merge(*, duplicate: Question, canonical: Question, by: User) -> MergePreview:
    """Say what merging would do: the thread, and what each follower newly finds in it.

    Nobody finds what they could not read before: followers who may not read are left out.
    """
    refusal, code = "", ""
    try:
        merging.refuse(duplicate, canonical, by=by)
    except MergeRefused as error:
        refusal, code = str(error), error.code
    can_be_one = not code or code == merging.NotAllowed.code
    mailed = notifications.told_of_merge(duplicate, canonical, by=by)
    closing = Question.objects.of_threads(duplicate.pk)
    readers = _readers(canonical)
    mailed = [person for person in mailed if readers is None or person.pk in readers]
    return MergePreview(
        duplicate=duplicate,
        canonical=canonical,
        closes=list(closing.select_related("asked_by").order_by("asked_at", "pk")),
        thread=thread.together(canonical, duplicate, by) if can_be_one else None,
        followers=_followers(duplicate, canonical, mailed, readers) if can_be_one else [],
        mailed=mailed,
        refusal=refusal,
        code=code,
        versions={duplicate.pk: duplicate.version, canonical.pk: canonical.version},
    )


def _readers(question: Question) -> set[int] | None:
    """Ids of customers and agents who may read a private question; None where everybody may."""
    if not question.is_private:
        return None
    agents = User.objects.with_perm(
        "support.view_private_question", backend="django.contrib.auth.backends.ModelBackend"
    )
    return {question.asked_by_id, *agents.values_list("pk", flat=True)}


def _followers(
    duplicate: Question, canonical: Question, mailed: Collection[User], readers: set[int] | None
) -> list[Follower]:
    """The union of both threads' followers, by name."""
    sides = [Question.objects.of_threads(side.pk).values("pk") for side in (duplicate, canonical)]
    answers = [Answer.objects.filter(question__in=side).count() for side in sides]
    of_duplicate, of_canonical = (
        set(Subscription.objects.filter(question__in=side).values_list("subscriber", flat=True))
        for side in sides
    )
    told = {person.pk for person in mailed}
    people = User.objects.filter(pk__in=of_duplicate | of_canonical).order_by("username")
    return [
        Follower(
            person=person,
            is_of_duplicate=person.pk in of_duplicate,
            is_of_canonical=person.pk in of_canonical,
            new_answers=sum(
                count
                for count, known in zip(answers, (of_duplicate, of_canonical), strict=True)
                if person.pk not in known
            ),
            is_mailed=person.pk in told,
        )
        for person in people
        if readers is None or person.pk in readers
    ]


@dataclass(frozen=True)
class Part:
    """Questions that stand together once a merge is taken back, and what they hold."""

    questions: list[Question]
    answers: int
    votes: int  # people, each once
    followers: int


@dataclass(frozen=True)
class UnmergePreview:
    """What taking a merge back would do."""

    edge: Merge
    returns: Part  # the duplicate, then what was merged into it and stays so
    stays: Part
    written_since: list[Answer]  # each stays where it was written
    refusal: str = ""  # why it cannot be done; empty where it can


def unmerge(*, edge: Merge, by: User) -> UnmergePreview:
    """Say what taking a merge back would do: what returns with what, and what was written since."""
    below = merging.subtree(edge.duplicate_id)
    whole = Question.objects.of_threads(edge.duplicate_id, edge.canonical_id)
    returns = _part(Question.objects.filter(pk__in=below), first=edge.duplicate_id)
    stays = _part(whole.exclude(pk__in=below), first=edge.canonical_id)
    since = Answer.objects.filter(question__in=whole, written_at__gte=edge.merged_at)
    standing = {q.pk: q for q in stays.questions}
    root = standing.get(edge.canonical.root_id, edge.canonical)
    concerned = (edge.canonical, root, *returns.questions)
    may = by.may_merge(*(question.product_id for question in concerned))
    return UnmergePreview(
        edge=edge,
        returns=returns,
        stays=stays,
        written_since=list(since.select_related("question", "written_by").order_by("written_at")),
        refusal="" if may else "Taking this merge back needs a right that you do not have.",
    )


def _part(members: QuestionQuerySet, *, first: int) -> Part:
    followers = Subscription.objects.filter(question__in=members.values("pk"))
    votes = Vote.objects.filter(question__in=members.values("pk"))
    return Part(
        questions=sorted(
            members.select_related("asked_by"), key=lambda q: (q.pk != first, *q.order)
        ),
        answers=Answer.objects.filter(question__in=members.values("pk")).count(),
        votes=votes.values("by").distinct().count(),
        followers=followers.values("subscriber").distinct().count(),
    )
