"""How often one may try to sign in, or have a mail sent that lets one in: exact for all processes.

In place of allauth's own limits. These keep their counts in the cache, which forgets some when it
is full, and wait a second for a lock on them: of 80 sign-ins at once they let 16 through where 30
are allowed, and refused the others a second later.
"""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter, get_adapter
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from django.contrib.auth.models import Group
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from support import quota
from support.http import address_of, client_of, too_many
from support.models import User
from support.permissions import CUSTOMER
from support.quota import Quota, Use

MINUTE = 60
# Wrong passwords; right ones are given back. By name, so that many computers get no more tries.
WRONG_BY_CLIENT = Quota("wrong_by_client", 10, MINUTE)
WRONG_BY_NAME = Quota("wrong_by_name", 5, 5 * MINUTE)
WRONG_CODES = Quota("wrong_codes", 5, 5 * MINUTE)  # of an authenticator, or to recover one
CODES_TO_ADDRESS = Quota("codes_to_address", 3, MINUTE)
RESETS_TO_ADDRESS = Quota("resets_to_address", 5, MINUTE)


class AccountAdapter(DefaultAccountAdapter):
    """Who signs up is a customer. Guests have an account already, and lack only a password."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "email_taken": _(
            "This address has an account. Without a password, sign in with a code that we send "
            "there; then you can set one."
        )
    }

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        saved: User = super().save_user(request, user, form, commit=commit)
        if commit:
            saved.groups.add(Group.objects.get_or_create(name=CUSTOMER)[0])
        return saved

    def get_client_ip(self, request: HttpRequest) -> str:
        return str(address_of(request))

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Count a password before it is looked at: many at once are not looked at either."""
        spend(request, *_passwords(request, credentials))

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        person: User | None = super().authenticate(request, **credentials)
        if person:
            give_back(*_passwords(request, credentials))
        return person

    def set_password(self, user: User, password: str) -> None:
        """Whoever may set it need not wait because of wrong ones."""
        super().set_password(user, password)
        quota.forget(WRONG_BY_NAME, spender=str(user.pk))


def _passwords(request: HttpRequest, credentials: dict[str, Any]) -> list[Use]:
    """A person is one, by user name and by mail address; names of nobody are counted alike."""
    name = str(credentials.get("email") or credentials.get("username") or "").lower()
    is_theirs = Q(username__iexact=name) | Q(email__iexact=name)
    is_theirs |= Q(pk__in=EmailAddress.objects.filter(email__iexact=name).values("user"))
    pk = User.objects.filter(is_theirs).order_by("pk").values_list("pk", flat=True).first()
    return [(WRONG_BY_CLIENT, client_of(request)), (WRONG_BY_NAME, str(pk) if pk else name)]


def spend(request: HttpRequest, *uses: Use) -> None:
    """Count these uses; where one is over its quota, the request is answered with a 429."""
    if seconds := quota.spend_each(uses, now=timezone.now()):
        raise ImmediateHttpResponse(too_many(request, seconds))


def give_back(*uses: Use) -> None:
    """These were good: they do not count."""
    now = timezone.now()
    for allowed, spender in uses:
        quota.give_back(allowed, spender=spender, now=now)


class CodesCounted:
    """A form that takes a code of a second factor: so many wrong ones for each person."""

    user: User

    def clean_code(self) -> str:
        use = (WRONG_CODES, str(self.user.pk))
        spend(get_adapter().request, use)
        code: str = super().clean_code()  # type: ignore[misc]
        give_back(use)
        return code
