from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.progress import Progress

from dedup.management.demo import text
from dedup.management.demo.seeding import seed_portal


class Command(BaseCommand):
    help = "Fill an empty portal with the demo's products, people, questions and merges."

    def handle(self, *args: Any, **options: Any) -> None:
        total = len(text.seed()["questions"])
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("Writing the demo's questions", total=total)
            stored = seed_portal(step=lambda: progress.advance(bar))
        self.stdout.write(f"{stored} questions stored." if stored else "The demo is there already.")
