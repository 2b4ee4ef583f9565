import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from support import audit


class Command(BaseCommand):
    help = "Prove that no entry of the audit trail was changed, taken out, moved or put in between."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--head",
            action="append",
            default=[],
            metavar="POSITION:HASH",
            help="as an earlier run said it: the trail must still have it; may be given again",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            noted = dict(audit.read_head(said) for said in options["head"])
        except audit.NoHead as error:
            raise CommandError(f"{error} is not POSITION:HASH, as verify_audit says it.") from error
        begun = time.monotonic()
        found = audit.verify(noted=noted)
        seconds = time.monotonic() - begun
        self.stdout.write(f"As they were written: {found.number} ({seconds:.1f} s).")
        if found.head:
            self.stdout.write(f"Head: {found.head}")
        if found.broken:
            raise CommandError(_said(found.broken))


def _said(broken: audit.Broken) -> str:
    place = f"Record {broken.position}" if broken.position else "A record"
    entry = f" (audit entry {broken.entry})" if broken.entry else ""
    return f"{place}{entry} {broken.why}."
