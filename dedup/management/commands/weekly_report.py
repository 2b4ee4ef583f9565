import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from dedup import weekly


class Command(BaseCommand):
    help = "Say what the machine did in a week, how well, and what went wrong."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--week", default="", help="as 2026-W48; by default the last one")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="for programs")
        form.add_argument("--markdown", action="store_true", help="for people; the default")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        name = options["week"] or weekly.week_of(now).before().name
        try:
            found = weekly.report(weekly.read_week(name, now=now), now=now)
        except weekly.NoWeek as error:
            raise CommandError(f"{name} is no week that has begun, as 2026-W48 is.") from error
        if options["json"]:
            self.stdout.write(json.dumps(weekly.as_dict(found), indent=2))
        else:
            self.stdout.write(weekly.as_markdown(found))
