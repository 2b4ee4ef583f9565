from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from support import inbound


class Command(BaseCommand):
    help = "Take the replies that wait in the mailbox (INBOUND_URL). Beat does so by itself."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.INBOUND_URL or not settings.INBOUND_DOMAIN:
            raise CommandError("Set INBOUND_URL and INBOUND_DOMAIN first.")
        try:
            count = inbound.fetch(now=timezone.now())
        except inbound.MailboxAway as error:
            raise CommandError(f"The mailbox cannot be reached: {error}") from None
        self.stdout.write(f"{count} mails taken.")
