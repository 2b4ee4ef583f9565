import gzip
import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from support import importing
from support.importing import Report

GZIP = b"\x1f\x8b"
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TaskProgressColumn(),
    TimeRemainingColumn(),
)


class Command(BaseCommand):
    help = "Store the questions of another portal, from JSON lines (also gzipped)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--product", default="", help="slug: all go into this one")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")
        parser.add_argument("--limit", type=int, help="read so many lines at most")
        parser.add_argument("--json", action="store_true", help="the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = _run(options)
        except (OSError, EOFError) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from error
        if options["json"]:
            self.stdout.write(json.dumps(asdict(report)))
            return
        for number, reason in report.problems:
            self.stdout.write(f"Line {number} is skipped: {reason}")
        would = "would be " if options["dry_run"] else ""
        self.stdout.write(
            f"{report.read} lines read: {report.stored} questions {would}stored, {report.known}"
            f" known already, {report.cut} cut to the limit, {report.skipped} lines skipped."
        )
        if report.stored and not options["dry_run"]:
            self.stdout.write("They wait in the background. backfill says how long, and watches.")


def _run(options: dict[str, Any]) -> Report:
    path: Path = options["file"]
    with path.open("rb") as raw, Progress(*COLUMNS, console=Console(stderr=True)) as progress:
        task = progress.add_task("Importing", total=path.stat().st_size)
        is_packed = raw.read(2) == GZIP
        raw.seek(0)
        file = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if is_packed else raw
        return importing.import_questions(
            importing.lines_of(file),
            product=options["product"],
            dry_run=options["dry_run"],
            limit=options["limit"],
            step=lambda report: progress.update(
                task, completed=raw.tell(), description=f"{report.stored} stored"
            ),
        )
