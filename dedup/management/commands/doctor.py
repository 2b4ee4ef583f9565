import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.table import Table

from dedup.management import diagnosis
from dedup.management.diagnosis import Finding

COLOURS = {
    diagnosis.GOOD: "green",
    diagnosis.NOTE: "yellow",
    diagnosis.BROKEN: "red",
    diagnosis.UNKNOWN: "dim",
}


class Command(BaseCommand):
    help = "Say what is there, what is missing, and how to repair it. Exits with 1 where one must."
    requires_system_checks = []  # they are among what is looked at

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = diagnosis.examine()
        is_healthy = diagnosis.is_healthy(found)
        if options["json"]:
            findings = [asdict(finding) for finding in found]
            self.stdout.write(json.dumps({"healthy": is_healthy, "findings": findings}, indent=1))
        else:
            Console(file=self.stdout, highlight=False).print(_table(found))  # type: ignore[arg-type]
        if not is_healthy:
            sys.exit(1)


def _table(found: list[Finding]) -> Table:
    table = Table("what", "state", "detail", "repair", box=None, pad_edge=False)
    for finding in found:
        state = f"[{COLOURS[finding.state]}]{finding.state}[/]"
        table.add_row(finding.name, state, finding.detail.replace("[", r"\["), finding.repair)
    return table
