import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dedup.management.demo.checking import CheckFailed, check


class Command(BaseCommand):
    help = "Go the whole road on a running demo (used by demo --check)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url")
        parser.add_argument("--out", type=Path, required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = check(options["url"], say=self.stderr.write)
        except CheckFailed as error:
            raise CommandError(str(error)) from error
        found = {"figures": report.as_dict(), "is_good": report.is_good}
        options["out"].write_text(json.dumps(found))
