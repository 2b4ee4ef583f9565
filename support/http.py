"""Between the web server and the views."""

from collections.abc import Callable
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django_htmx.middleware import HtmxDetails

from support.models import User
from support.permissions import CUSTOMER

Handler = Callable[[HttpRequest], HttpResponse]


class HtmxRequest(HttpRequest):
    """A request of a signed-in person, as views see it."""

    htmx: HtmxDetails
    user: User


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Who signs up is a customer."""

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        from django.contrib.auth.models import Group

        saved: User = super().save_user(request, user, form, commit=commit)
        if commit:
            saved.groups.add(Group.objects.get_or_create(name=CUSTOMER)[0])
        return saved


def site(request: HttpRequest) -> dict[str, Any]:
    """For every template: whether this is a demo."""
    return {"is_demo": settings.DEMO}


def refuse_unreadable(get_response: Handler) -> Handler:
    """Answer what no view can read: NUL in the address, a body too large, Postgres away."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
            return refusal(request, 400, "invalid_character", "The address has a NUL character.")
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length.isdigit() and int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
            return refusal(request, 413, "too_large", f"At most {limit} bytes are taken.")
        return get_response(request)

    def process_exception(request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, RequestDataTooBig):
            return refusal(request, 413, "too_large", "The request is too large.")
        if isinstance(error, OperationalError | InterfaceError):
            response = refusal(request, 503, "unavailable", "Please try again in a moment.")
            response["Retry-After"] = "5"
            return response
        return None

    middleware.process_exception = process_exception  # type: ignore[attr-defined]
    return middleware


def refusal(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    """Problem details (RFC 9457) for programs, a page for people."""
    if request.path_info.startswith("/api/"):
        body = {"type": "about:blank", "status": status, "code": code, "title": detail}
        return JsonResponse(body, status=status, content_type="application/problem+json")
    return render(None, "refusal.html", {"status": status, "detail": detail}, status=status)  # type: ignore[arg-type]
