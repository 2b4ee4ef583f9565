import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dedup import evaluating
from dedup.ml import reporting
from dedup.ml.artifact import ArtifactRefused


class Command(BaseCommand):
    help = "Measure a release on what people said here, and on the labelled sets in a folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("release", help="its name, or its folder")
        parser.add_argument(
            "--own", action="store_true",
            help="on this portal's own pairs, the default without --data; of a release that is"
            " known, a report is kept",
        )  # fmt: skip
        parser.add_argument("--data", type=Path, help="folder of labelled sets")
        parser.add_argument("--against", help="another release, held against it on own pairs")
        parser.add_argument("--out", type=Path, help="where the report's folder is made")
        parser.add_argument("--json", action="store_true", help="the whole report")

    def handle(self, *args: Any, **options: Any) -> None:
        is_own = options["own"] or options["data"] is None
        if options["out"] and options["out"].exists():
            raise CommandError(f"{options['out']} is there already.")
        console = Console(file=self.stderr, width=100)  # type: ignore[arg-type]
        try:
            subject = evaluating.Subject.named(options["release"])
            against = options["against"] and evaluating.Subject.named(options["against"])
            if against and against.manifest.fingerprint == subject.manifest.fingerprint:
                raise CommandError("A release is not held against itself.")
            with Progress(console=console, transient=True) as shown:
                report = self._measure(subject, against or None, is_own, options, shown)
        except (ArtifactRefused, OSError) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            self._show(report)

    def _measure(
        self, subject: evaluating.Subject, against: evaluating.Subject | None, is_own: bool,
        options: dict[str, Any], shown: Progress,
    ) -> dict[str, Any]:  # fmt: skip
        bar, now, data, out = shown.add_task(""), timezone.now(), options["data"], options["out"]

        def progress(done: int, total: int, step: str) -> None:
            shown.update(bar, completed=done, total=total or None, description=step)

        if is_own and subject.row:
            kept = evaluating.measure(
                subject, against=against, progress=progress, now=now, data=data, out=out
            )
            return dict(kept.figures)
        report, drawn = evaluating.examine(
            subject, against=against, is_own=is_own, data=data, progress=progress, now=now
        )
        if out:
            reporting.write(out, report, drawn)
        return report

    def _show(self, report: dict[str, Any]) -> None:
        console = Console(file=self.stdout, width=100, highlight=False)  # type: ignore[arg-type]
        if "own" in report:
            console.print(own_table(report["own"]))
        if "speed" in report:
            found = report["speed"]
            console.print(
                f"A question against {found['candidates']}: {found['milliseconds_median']:.0f} ms;"
                f" {found['pairs_a_second']:.0f} pairs a second;"
                f" {found['cpu_seconds_per_1000']:.0f} processor seconds for 1,000 questions."
            )
        if "sets" in report:
            table = Table("set", "rows", "metric", "release", "cosine alone", "words alone")
            for row in reporting.ranked_rows(report["sets"]):
                table.add_row(*row)
            console.print(table)


def own_table(own: dict[str, Any]) -> Table:
    """Figures on the portal's own pairs, and by segment."""
    title = f"{own['pairs']} own pairs, {own['duplicates']} of them duplicates"
    table = Table(title=title)
    table.add_column("of", no_wrap=True)
    for column in ("pairs", *(reporting.WORDS[name] for name in reporting.FIGURES)):
        table.add_column(column)
    parts = [("all", own)]
    parts += [
        (f"{kind}: {row['value']}", row) for kind, rows in own["segments"].items() for row in rows
    ]
    for name, part in parts:
        figures = (part["figures"].get(figure) for figure in reporting.FIGURES)
        table.add_row(name, str(part["pairs"]), *(between(found) for found in figures))
    return table


def between(found: dict[str, float] | None) -> str:
    """A figure with its interval."""
    if found is None:
        return "too few"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
