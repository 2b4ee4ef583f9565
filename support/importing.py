"""Questions of another portal come in: many at once, each with its entry for a check."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.text import slugify

from support import audit, language, outbox
from support.markup import to_markdown
from support.models import Product, Question, User
from support.models.validators import LARGEST_BODY, LARGEST_TITLE, validate_characters

IMPORTER = "importer"
BATCH = 500
LARGEST_LINE = 1_000_000  # bytes
MOST_PROBLEMS = 100  # that a report lists; it counts all
CHECKED_ELSEWHERE = ["product", "asked_by", "canonical", "is_root", "canonical_is_root", "words"]


class BadLine(Exception):
    """A line that is no question; the text says why."""


@dataclass
class Report:
    """What an import did so far."""

    read: int = 0
    stored: int = 0
    known: int = 0  # imported before: left as they are
    cut: int = 0  # title or body was over the limit
    skipped: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)  # number of the line, why

    def refuse(self, number: int, reason: str) -> None:
        self.skipped += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append((number, reason))


def import_questions(
    lines: Iterable[bytes],
    *,
    product: str = "",
    dry_run: bool = False,
    limit: int | None = None,
    now: datetime | None = None,
    step: Callable[[Report], object] = bool,
) -> Report:
    """Store the questions in these JSON lines: site, id, title, body and date of each.

    Each batch is one transaction with its outbox entries, so that nothing is stored unchecked and
    an import that was broken off goes on where it was: what is there already, by site and id, is
    left alone. All belong to one person, "importer", who cannot log in and gets no mail: authors
    of another portal have no account here, and none is made up for them. Products are found or
    made by the site's name, or all go into `product` (a slug). `step` is called after each batch.
    """
    report, now = Report(), now or timezone.now()
    numbered = enumerate(lines, 1)
    usable = _parsed(islice(numbered, limit), report)
    while batch := list(islice(usable, BATCH)):
        with transaction.atomic():
            _store(batch, product, now, report)
            transaction.set_rollback(dry_run)
        step(report)
    return report


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is far too long only so much that it will be refused."""
    while line := file.readline(LARGEST_LINE + 1):
        yield line
        while len(line) > LARGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LARGEST_LINE + 1)


def _parsed(
    numbered: Iterable[tuple[int, bytes]], report: Report
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in numbered:
        report.read += 1
        try:
            yield number, _fields(line)
        except BadLine as error:
            report.refuse(number, str(error))


def _fields(line: bytes) -> dict[str, Any]:
    if len(line) > LARGEST_LINE:
        raise BadLine(f"longer than {LARGEST_LINE} bytes")
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise BadLine("not JSON in UTF-8") from error
    if not isinstance(row, dict):
        raise BadLine("not an object")
    if isinstance(row.get("id"), int):
        row["id"] = str(row["id"])
    for name in ("site", "id", "title"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise BadLine(f"{name} is missing")
        try:
            validate_characters(row[name])
        except ValidationError as error:
            raise BadLine(f"{name}: {error.messages[0]}") from error
    if not isinstance(row.get("body", ""), str):
        raise BadLine("body is no text")
    return row


def _store(
    batch: list[tuple[int, dict[str, Any]]], product: str, now: datetime, report: Report
) -> None:
    sources = {f"{row['site']}:{row['id']}" for _, row in batch}
    known = set(Question.objects.filter(source__in=sources).values_list("source", flat=True))
    importer = _importer()
    products: dict[str, Product] = {}
    questions: dict[str, Question] = {}
    for number, row in batch:
        source = f"{row['site']}:{row['id']}"
        if source in known or source in questions:
            report.known += 1
            continue
        name = product or row["site"].strip()
        try:
            if name not in products:
                products[name] = _product(name)
            questions[source] = _question(row, source, products[name], importer, now, report)
        except ValidationError as error:
            report.refuse(number, "; ".join(error.messages))
    # Another import may store the same at this moment: then its rows and entries stand.
    Question.objects.bulk_create(questions.values(), ignore_conflicts=True)
    new = Question.objects.filter(source__in=questions, outbox_entry__isnull=True).order_by("pk")
    ids = list(new.values_list("pk", flat=True))
    report.stored += len(ids)
    report.known += len(questions) - len(ids)
    if ids:
        outbox.put_all(ids, is_background=True, now=now)
        audit.record("imported", by=importer, now=now, first=ids[0], last=ids[-1], number=len(ids))


def _question(
    row: dict[str, Any], source: str, product: Product, by: User, now: datetime, report: Report
) -> Question:
    title, body = " ".join(to_markdown(row["title"]).split()), to_markdown(row.get("body", ""))
    question = Question(
        product=product,
        title=_cut(title, LARGEST_TITLE),
        body=_cut(body, LARGEST_BODY),
        asked_by=by,
        asked_at=_moment(row.get("date"), now),
        source=source,
        language=language.detected(title, body),
    )
    question.clean_fields(exclude=CHECKED_ELSEWHERE)
    report.cut += (question.title, question.body) != (title, body)
    return question


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _moment(written: object, now: datetime) -> datetime:
    """When it was asked; now, where the row does not say or names the future."""
    try:
        moment = datetime.fromisoformat(str(written))
    except ValueError:
        return now
    return min(moment if moment.tzinfo else moment.replace(tzinfo=UTC), now)


def _importer() -> User:
    importer, is_new = User.objects.get_or_create(
        username=IMPORTER,
        defaults={"display_name": "Import", "is_active": False, "mail_pace": User.MailPace.NONE},
    )
    if is_new:
        importer.set_unusable_password()
        importer.save(update_fields=["password"])
    return importer


def _product(name: str) -> Product:
    slug = slugify(name.replace(".", "-"))[:50]
    if not slug:
        raise ValidationError(f"{name[:50]} gives no product")
    found = Product.objects.filter(Q(slug=slug) | Q(name=name[:100])).order_by("pk").first()
    return found or Product.objects.create(slug=slug, name=name[:100])
