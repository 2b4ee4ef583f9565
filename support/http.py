"""Between the web server and the views."""

import codecs
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.wsgi import WSGIRequest
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.middleware.locale import LocaleMiddleware
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views import defaults
from django_htmx.middleware import HtmxDetails
from django_structlog.middlewares import RequestMiddleware

from support import problems
from support.models import User

Handler = Callable[[HttpRequest], HttpResponse]
Address = IPv4Address | IPv6Address
FACTORS = [Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN]  # codes to recover one are none
FOR_MONITORS = ("/livez", "/readyz", "/healthz/")
TOKEN_FIELD = "csrfmiddlewaretoken"  # noqa: S105 - its name
WITHOUT_SECOND_FACTOR = ("/accounts/", *FOR_MONITORS)
DATABASE_AWAY = (OperationalError, InterfaceError)


class Request(WSGIRequest):
    """A request; a Content-Type that cannot be read counts as none, or no middleware would see it
    and the server would fail by itself."""

    def __init__(self, environ: dict[str, Any]) -> None:
        try:
            super().__init__(environ)
        except (ValueError, LookupError):
            self.__dict__.clear()  # it may have begun to read
            super().__init__(environ | {"CONTENT_TYPE": ""})


class HtmxRequest(HttpRequest):
    """A request of a signed-in person, as views see it."""

    htmx: HtmxDetails
    user: User


class RequestLog(RequestMiddleware):
    """A log line for each request, with its id. Never the query: a search may be private."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {request.path}"


def site(request: HttpRequest) -> dict[str, Any]:
    """For every template: whether this is a demo."""
    return {"is_demo": settings.DEMO}


class LanguageMiddleware(LocaleMiddleware):
    """Pages are in their reader's language; what programs read is not, whatever they ask for."""

    def process_request(self, request: HttpRequest) -> None:
        translation.activate(language_of(request))
        request.LANGUAGE_CODE = translation.get_language()


def language_of(request: HttpRequest) -> str:
    """The language to answer in: chosen on a page, or else the first known one of the browser's."""
    if is_for_program(request):
        return settings.LANGUAGE_CODE
    return translation.get_language_from_request(request)


def refuse_unreadable(get_response: Handler) -> Handler:
    """Answer what no view can read, such as NUL, a body too large or an odd header; and what none
    can answer while Postgres is away."""

    def middleware(request: HttpRequest) -> HttpResponse:
        refused = _refused_unread(request)
        if refused:
            return refused
        response = get_response(request)
        return _no_such_method(request, response) if response.status_code == 405 else response

    def process_view(request: HttpRequest, *_view: Any) -> HttpResponse | None:
        if is_for_program(request):
            return None  # it takes no forms
        if any("\0" in text for name, texts in request.POST.lists() for text in (name, *texts)):
            return refusal(request, 400, "invalid_character", _("The form has a NUL character."))
        return None

    def process_exception(request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, RequestDataTooBig):
            return refusal(request, 413, "too_large", _("The request is too large."))
        return unavailable(request) if isinstance(error, DATABASE_AWAY) else None

    middleware.process_view = process_view  # type: ignore[attr-defined]
    middleware.process_exception = process_exception  # type: ignore[attr-defined]
    return middleware


def _refused_unread(request: HttpRequest) -> HttpResponse | None:
    """What is answered where address, headers or length alone say that nothing can be read."""
    if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
        return refusal(request, 400, "invalid_character", _("The address has a NUL character."))
    if not _has_readable_headers(request):
        return refusal(request, 400, "bad_request", _("This request cannot be answered."))
    if int(request.META.get("CONTENT_LENGTH") or 0) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return refusal(request, 413, "too_large", _too_large())
    if not _is_utf8((request.content_params or {}).get("charset", "utf-8")):
        return refusal(request, 415, "unsupported_charset", _("Only UTF-8 is read here."))
    return None


def _has_readable_headers(request: HttpRequest) -> bool:
    """Whether Django can read the length and the wanted kinds; it takes both for granted."""
    try:
        _ = request.accepted_types
        return int(request.META.get("CONTENT_LENGTH") or 0) >= 0
    except ValueError:
        return False


def _is_utf8(charset: str) -> bool:
    """Whether texts are in UTF-8: in others, some codecs fail and some give half characters."""
    try:
        return codecs.lookup(charset).name in {"utf-8", "ascii"}
    except (LookupError, ValueError):
        return False


def _no_such_method(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Django leaves this one empty; who signs in on the way to a button of a page comes here."""
    if is_for_program(request):
        return response
    said = _("This address shows nothing by itself. Please go back to the page that led here.")
    page = refusal(request, 405, "method_not_allowed", said)
    page["Allow"] = response["Allow"]
    return page


def _too_large() -> str:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    said = ngettext("At most %(count)s byte is taken.", "At most %(count)s bytes are taken.", limit)
    return said % {"count": limit}


def require_second_factor(get_response: Handler) -> Handler:
    """Agents and admins read private questions: a password alone lets them add a factor, no more.

    A program's token is a factor of its own.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        is_open = request.path_info.startswith(WITHOUT_SECOND_FACTOR)
        if is_open or not settings.SECOND_FACTOR or not _lacks_second_factor(request.user):
            return get_response(request)
        if is_for_program(request):
            detail = "Add a second factor to your account first."
            return refusal(request, 403, "second_factor_required", detail)
        return redirect("mfa_activate_totp")

    return middleware


def _lacks_second_factor(user: Any) -> bool:
    return user.is_authenticated and user.is_agent and not is_mfa_enabled(user, FACTORS)


def is_for_program(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")


def refusal(
    request: HttpRequest, status: int, code: str, detail: str | Promise, *, keeps: bool = False
) -> HttpResponse:
    """Problem details (RFC 9457) for programs, a page for people in their language.

    A page that `keeps` holds what was sent, to be sent again.
    """
    with translation.override(language_of(request)):  # also where nothing has asked for it yet
        if is_for_program(request):
            body = problems.details(status=status, code=code, detail=str(detail))
            return JsonResponse(body, status=status, content_type=problems.MEDIA_TYPE)
        context: dict[str, Any] = {"status": status, "detail": detail}
        if keeps:
            fields = [(name, value) for name, values in request.POST.lists() for value in values]
            context |= {"path": request.get_full_path(), "csrf_token": get_token(request)}
            context |= {"kept": [field for field in fields if field[0] != TOKEN_FIELD]}
        return render(None, "refusal.html", context, status=status)


def unavailable(request: HttpRequest) -> HttpResponse:
    """The database cannot be reached, or gave up: a moment later it may answer."""
    response = refusal(request, 503, "unavailable", _("Please try again in a moment."))
    response["Retry-After"] = "5"
    return response


def too_many(request: HttpRequest, seconds: int, *, keeps: bool = False) -> HttpResponse:
    """Somebody did something so often that the next time has to wait."""
    response = refusal(request, 429, "too_many", wait_words(seconds), keeps=keeps)
    response["Retry-After"] = str(seconds)
    return response


def wait_words(seconds: int) -> str:
    """When somebody who did something too often may do it again."""
    minutes = -(-seconds // 60)
    return ngettext(
        "That was too often. Please try again in %(minutes)d minute.",
        "That was too often. Please try again in %(minutes)d minutes.",
        minutes,
    ) % {"minutes": minutes}


def address_of(request: HttpRequest) -> Address:
    """Where a request came from; "::" where that cannot be known.

    Each of our proxies adds whom it heard from to the end: what stands before those may be made up.
    Where fewer are named than we have, the request went around one.
    """
    named = request.headers.get("X-Forwarded-For", "").split(",")
    count = settings.PROXY_COUNT
    said = named[-count].strip() if 0 < count <= len(named) else ""
    try:
        address = ip_address(said or request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return IPv6Address(0)
    return getattr(address, "ipv4_mapped", None) or address


def client_of(request: HttpRequest) -> str:
    """Whose uses are counted together: an address, or of IPv6 all that begin with the same half,
    since each home and each server has that many."""
    address = address_of(request)
    return str(ip_network((int(address), 64), strict=False) if address.version == 6 else address)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What Django itself refuses, such as a host that is not ours."""
    return refusal(request, 400, "bad_request", _("This request cannot be answered."))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_for_program(request):
        return refusal(request, 404, "not_found", "Not found.")
    return defaults.page_not_found(request, exception)


def failed(request: HttpRequest) -> HttpResponse:
    """An error that nobody foresaw; where only the database was away, that is said instead."""
    if isinstance(sys.exc_info()[1], DATABASE_AWAY):
        return unavailable(request)
    if is_for_program(request):
        return refusal(request, 500, "failed", "This failed, and we were told.")
    return defaults.server_error(request)
