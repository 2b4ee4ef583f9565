"""How a program's request is read: who sends it, and JSON without traps.

Apart from `support.api`, since the REST framework imports these while its views are still loading.
"""

import json
import math
from typing import Any, NoReturn

from django.conf import settings
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.parsers import JSONParser
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from support import quota
from support.models import ApiToken, User
from support.models.token import digest

DEEPEST_JSON = 20


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer ask_…`."""

    keyword = "Bearer"

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        found = ApiToken.objects.usable().select_related("user")
        token = found.filter(digest=digest(secret.decode("latin-1").strip())).first()
        if token is None or not token.user.is_active:
            raise exceptions.AuthenticationFailed("This token is not valid.")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return self.keyword


class TokenScope(BasePermission):
    """A token made for reading writes nothing, whatever its person may do."""

    message = "This token is for reading only."
    code = "read_only_token"

    def has_permission(self, request: Request, view: Any) -> bool:
        only_asks = request.method in SAFE_METHODS or getattr(view, "saves_nothing", False)
        token = request.auth
        return only_asks or not isinstance(token, ApiToken) or token.scope == ApiToken.Scope.WRITE


class WritesQuota(BaseThrottle):
    """So many writes a minute for each person, whatever address they come from."""

    seconds_left = 0

    def allow_request(self, request: Request, view: Any) -> bool:
        if request.method in SAFE_METHODS or not request.user.is_authenticated:
            return True
        allowed = quota.Quota("api_writes", settings.API_WRITES_PER_MINUTE, seconds=60)
        self.seconds_left = quota.spend(allowed, spender=str(request.user.pk), now=timezone.now())
        return not self.seconds_left

    def wait(self) -> float:
        return self.seconds_left


class StrictJSONParser(JSONParser):
    """JSON without what Postgres or a reader would choke on: each refusal has a code."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            text = stream.read().decode("utf-8")
            _refuse_depth(text)
            read = json.loads(
                text,
                object_pairs_hook=_unique,
                parse_constant=_refuse_constant,
                parse_float=_finite,
            )
            _refuse_unstorable(read)
        except (ValueError, RecursionError) as error:
            raise exceptions.ParseError("This is not JSON in UTF-8.", code="parse_error") from error
        return read


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise exceptions.ParseError("A key stands twice.", code="duplicate_key")
    return read


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _refuse_depth(text: str) -> None:
    depth, is_text, is_escaped = 0, False, False
    for character in text:
        if is_text:
            is_text = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_text = True
        elif character in "[{":
            depth += 1
            if depth > DEEPEST_JSON:
                raise exceptions.ParseError("This is nested too deep.", code="too_deep")
        elif character in "]}":
            depth -= 1


def _refuse_unstorable(read: Any) -> None:
    if isinstance(read, str):
        if "\0" in read or any("\ud800" <= character <= "\udfff" for character in read):
            raise exceptions.ParseError("A character cannot be stored.", code="invalid_character")
    elif isinstance(read, dict):
        for key, value in read.items():
            _refuse_unstorable(key)
            _refuse_unstorable(value)
    elif isinstance(read, list):
        for value in read:
            _refuse_unstorable(value)
