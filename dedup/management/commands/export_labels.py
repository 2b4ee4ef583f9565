import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime
from rich.console import Console
from rich.progress import track

from dedup import feedback
from dedup.feedback import Label

LONG = 5_000  # labels
TIMES = ("said_at", "first_said_at")


class Command(BaseCommand):
    help = (
        "Write what people said of pairs as JSON lines. They have the texts of the questions in"
        " them, private ones too; people stand there by id."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, nargs="?", help="standard output without one")
        parser.add_argument("--since", help="only what was said from then on: 2026-11-28[T10:00]")

    def handle(self, *args: Any, **options: Any) -> None:
        since = read_time(options["since"]) if options["since"] else None
        found = [one for one in feedback.labels() if since is None or one.said_at >= since]
        try:
            with _opened(options["file"], self.stdout) as out:
                for line in _lines(found):
                    out.write(line + "\n")
        except OSError as error:
            raise CommandError(f"The file cannot be written: {error}") from error
        self.stderr.write(f"{len(found)} labels")


def read_time(given: str) -> datetime:
    """A day or a time; in UTC where nothing else stands there. Raises CommandError."""
    try:
        moment = parse_datetime(given)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"{given} is no time: write it as 2026-11-28 or 2026-11-28T10:00.")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _opened(file: Path | None, out: Any) -> Any:
    return nullcontext(out) if file is None else file.open("w", encoding="utf-8")


def _lines(found: list[Label]) -> Iterator[str]:
    shown: Iterable[Label] = found
    if len(found) > LONG:
        shown = track(found, "writing", console=Console(stderr=True), transient=True)
    for one in shown:
        times = {name: getattr(one, name).isoformat() for name in TIMES}
        row = asdict(one) | times
        yield json.dumps(row, ensure_ascii=False)
