import os
import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from support import inbound


class Command(BaseCommand):
    help = "Take one mail from a mail server's pipe. Exits with 75 where it is to be tried again."
    requires_system_checks = []  # a server starts this for each mail

    def handle(self, *args: Any, **options: Any) -> None:
        raw = sys.stdin.buffer.read(inbound.LARGEST_MAIL + 1)
        try:
            inbound.receive(raw, now=timezone.now())
        except (DatabaseError, InterfaceError) as error:
            self.stderr.write(f"Try again later: {type(error).__name__}")
            sys.exit(os.EX_TEMPFAIL)
