import importlib
import json
import pkgutil
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console

from dedup.management import bench

NAMES = sorted(found.name for found in pkgutil.iter_modules(bench.__path__))


class Command(BaseCommand):
    help = "Measure how fast and how good a part is on this machine."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parts = parser.add_subparsers(dest="part", required=True)
        for name in NAMES:
            module = importlib.import_module(f"{bench.__name__}.{name}")
            part = parts.add_parser(name, help=(module.__doc__ or "").partition("\n")[0])
            part.add_argument("--json", action="store_true", help="figures as JSON")
            module.add_arguments(part)

    def handle(self, *args: Any, **options: Any) -> None:
        module = importlib.import_module(f"{bench.__name__}.{options['part']}")
        found, tables = module.run(Console(stderr=True), options)
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        console = Console(file=self.stdout, width=120, highlight=False)  # type: ignore[arg-type]
        for table in tables:
            console.print(table)
