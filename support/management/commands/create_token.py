from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from support.models import ApiToken, User


class Command(BaseCommand):
    help = "Create a token for a program that acts as a person. It is shown this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="a username")
        parser.add_argument("name", help="what the token is for")
        parser.add_argument("--scope", choices=ApiToken.Scope.values, default=ApiToken.Scope.READ)
        parser.add_argument("--days", type=int, default=90, help="until it expires (90)")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active person named {options['user']}.")
        if options["days"] < 1:
            raise CommandError("A token is valid for a day at least.")
        _, secret = ApiToken.objects.issue(
            user=user, name=options["name"], scope=options["scope"],
            expires_at=timezone.now() + timedelta(days=options["days"]),
        )  # fmt: skip
        self.stdout.write(secret)
