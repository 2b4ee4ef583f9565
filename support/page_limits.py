"""How often a page may be sent to, or searched: exact for all processes."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from support import quota
from support.http import Handler, client_of, too_many
from support.quota import Quota, Use

MINUTE = 60


def _in_a_minute(**pages: int) -> dict[str, Quota]:
    """A quota for each page, of so many in a minute."""
    return {
        page: Quota(page.removeprefix("account_"), most, MINUTE) for page, most in pages.items()
    }


# What is sent to a page, by whoever sends it: by address, for they have not signed in.
SENT_BY_CLIENT = _in_a_minute(
    account_login=30,
    account_signup=20,
    account_request_login_code=20,
    account_confirm_login_code=20,
    account_reset_password=20,
    account_reset_password_from_key=20,
    mfa_authenticate=20,
    mfa_login_webauthn=10,
)
SENT_BY_PERSON = _in_a_minute(
    account_reauthenticate=10,
    account_change_password=5,
    account_set_password=5,
    account_email=10,
)
# By whom we know, or else by address. What was typed on these stays with who is refused.
TEXTS = _in_a_minute(ask=30, edit_question=30, answer=30, dispute=10)
SENT_BY_ANYBODY = TEXTS | _in_a_minute(similar=240)  # four a second, as one types
# Guesses at one mailed code: it is bound to the session that asked for it.
SENT_BY_SESSION = {"account_confirm_login_code": Quota("guesses_in_session", 5, 15 * MINUTE)}
SEARCHES = Quota("searches", 120, MINUTE)
SEARCH_PAGE = "home"


def limit_pages(get_response: Handler) -> Handler:
    """Refuse what comes too often."""

    def middleware(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    def process_view(request: HttpRequest, *_view: Any) -> HttpResponse | None:
        is_read = request.method in {"GET", "HEAD", "OPTIONS"}
        uses = _searched(request) if is_read else _sent(request)
        seconds = quota.spend_each(uses, now=timezone.now())
        keeps = not is_read and _page_of(request) in TEXTS
        return too_many(request, seconds, keeps=keeps) if seconds else None

    middleware.process_view = process_view  # type: ignore[attr-defined]
    return middleware


def _sent(request: HttpRequest) -> list[Use]:
    page, uses = _page_of(request), []
    if page in SENT_BY_CLIENT:
        uses.append((SENT_BY_CLIENT[page], client_of(request)))
    if page in SENT_BY_PERSON and request.user.is_authenticated:
        uses.append((SENT_BY_PERSON[page], str(request.user.pk)))
    if page in SENT_BY_ANYBODY:
        uses.append((SENT_BY_ANYBODY[page], _whom(request)))
    if page in SENT_BY_SESSION and request.session.session_key:
        uses.append((SENT_BY_SESSION[page], request.session.session_key))
    return uses


def _searched(request: HttpRequest) -> list[Use]:
    is_search = _page_of(request) == SEARCH_PAGE and request.GET.get("q", "").strip()
    return [(SEARCHES, _whom(request))] if is_search else []


def _whom(request: HttpRequest) -> str:
    return str(request.user.pk) if request.user.is_authenticated else client_of(request)


def _page_of(request: HttpRequest) -> str:
    return request.resolver_match.view_name if request.resolver_match else ""
