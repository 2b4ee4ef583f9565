from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from support import erasing, merging
from support.models import User


class Command(BaseCommand):
    help = "Erase a person for good: texts, name, address, sessions and keys. Threads stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="a username")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        person = User.objects.filter(username=options["user"]).first()
        if person is None:
            raise CommandError(f"There is no person named {options['user']}.")
        question = f"Erase {person.username} for good? Type the name again: "
        if not options["yes"] and input(question) != person.username:
            raise CommandError("Nothing was erased.")
        try:
            erased = erasing.erase(person=person, by=None)
        except (erasing.LastAdmin, merging.ThreadsMoved) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Erased; what is left is called {erased.username}.")
