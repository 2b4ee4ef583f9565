"""Fills an empty portal with the demo's text, through the functions that people's pages call."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from dedup.management.demo import text
from support import answering, asking, merging, permissions
from support.models import (
    AnswerVote,
    Notification,
    OutboxEntry,
    Product,
    Question,
    Subscription,
    User,
    Vote,
)

PASSWORD = "askonce-demo"  # noqa: S105 - printed on the demo's own screen and banner
LOGINS = (permissions.CUSTOMER, permissions.AGENT, permissions.ADMIN)
SEED = 20


def seed_portal(*, now: datetime | None = None, step: Callable[[], object] = bool) -> int:
    """Store the demo's people, questions, answers and merges; return how many questions.

    All of it or nothing. `step` is called after each question. Where the demo's questions are
    there already, nothing happens and 0 is returned.
    """
    if Question.objects.filter(source__startswith=text.SOURCE).exists():
        return 0
    now, written = now or timezone.now(), text.seed()
    with transaction.atomic():
        people = _people(written["people"])
        products = {
            row["slug"]: Product.objects.get_or_create(slug=row["slug"], defaults=row)[0]
            for row in written["products"]
        }
        in_order = sorted(written["questions"], key=lambda row: -row["days_ago"])
        by_key: dict[str, Question] = {}
        rng = random.Random(SEED)  # noqa: S311 - no secret
        for row in in_order:
            by_key[row["key"]] = _question(row, products, people, rng, now)
            step()
        for row in in_order:
            if row.get("merged"):
                _merge(by_key[row["key"]], by_key[row["duplicate_of"]], people["admin"], now)
        # What happened long ago is nobody's news, and the checks begin today.
        Notification.objects.update(status=Notification.Status.CANCELLED)
        OutboxEntry.objects.update(put_at=now)
    return len(by_key)


def _people(rows: list[dict[str, Any]]) -> dict[str, User]:
    people, password = {}, make_password(PASSWORD)  # hashed once: a hash takes its time
    for row in rows:
        person, _ = User.objects.get_or_create(
            username=row["username"],
            defaults={
                "display_name": row["display_name"],
                "email": row["email"],
                "password": password,
            },
        )
        EmailAddress.objects.get_or_create(
            user=person, email=person.email, defaults={"verified": True, "primary": True}
        )
        person.groups.add(Group.objects.get(name=row["role"]))
        people[row["username"]] = person
    return people


def _question(
    row: dict[str, Any],
    products: dict[str, Product],
    people: dict[str, User],
    rng: random.Random,
    now: datetime,
) -> Question:
    asked_at = now - timedelta(days=row["days_ago"])
    asker = people[row["asked_by"]]
    question = asking.submit_question(
        product=products[row["product"]], title=row["title"], body=row["body"],
        audience=row["audience"], by=asker, now=asked_at,
    )  # fmt: skip
    Question.objects.filter(pk=question.pk).update(source=text.SOURCE + row["key"])
    crowd = [person for person in people.values() if person.pk != asker.pk]
    for answer in row["answers"]:
        _answer(question, answer, people, crowd, rng, now)
    Vote.objects.bulk_create(
        Vote(question=question, by=person, voted_at=asked_at)
        for person in rng.sample(crowd, min(row["votes"], len(crowd)))
    )
    Subscription.objects.bulk_create(
        (
            Subscription(question=question, subscriber=person, subscribed_at=asked_at)
            for person in rng.sample(crowd, min(row["followers"], len(crowd)))
        ),
        ignore_conflicts=True,
    )
    return question


def _answer(
    question: Question,
    row: dict[str, Any],
    people: dict[str, User],
    crowd: list[User],
    rng: random.Random,
    now: datetime,
) -> None:
    written_at = now - timedelta(days=row["days_ago"])
    answer = answering.post_answer(
        question=question, body=row["body"], by=people[row["by"]], now=written_at
    )
    helped = [person for person in crowd if person.pk != answer.written_by_id]
    AnswerVote.objects.bulk_create(
        AnswerVote(answer=answer, by=person, voted_at=written_at)
        for person in rng.sample(helped, min(row.get("votes", 0), len(helped)))
    )
    if row["accepted"]:
        answering.accept_answer(
            question=question, answer=answer, by=question.asked_by, now=written_at
        )


def _merge(duplicate: Question, canonical: Question, admin: User, now: datetime) -> None:
    merged_at = min(now, duplicate.asked_at + timedelta(hours=7))
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin, now=merged_at)
