"""Pages of one's own account: what a person can set, take away and erase."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.account.decorators import reauthentication_required
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import translation
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST
from django.views.i18n import set_language

from support import erasing, exporting, merging
from support.forms import EraseForm, PreferencesForm
from support.http import HtmxRequest

View = Callable[[HtmxRequest], Any]


def proof_required(view: View) -> View:
    """Who sends this has just proved once more who they are.

    By password or second factor; who has neither, by a code that is sent to their address.
    """

    @wraps(view)
    def proved(request: HtmxRequest) -> Any:
        if request.method == "GET" or _came_just_now(request):
            return view(request)
        if get_reauthentication_flows(request.user):
            return reauthentication_required(view)(request)
        logout(request)
        messages.info(request, _("Sign in once more, so that we know that it is you."))
        by_code = reverse("account_request_login_code")
        return redirect(f"{by_code}?{urlencode({'next': request.path})}")

    return proved


def _came_just_now(request: HtmxRequest) -> bool:
    """Whether somebody without password and second factor signed in a short while ago."""
    if get_reauthentication_flows(request.user):
        return False
    times = [record["at"] for record in get_authentication_records(request, request.user)]
    return time.time() - max(times, default=0) < settings.ACCOUNT_REAUTHENTICATION_TIMEOUT


def choose_language(request: HtmxRequest) -> HttpResponse:
    """Read on in another language: at the next visit too, in this browser and in this account."""
    chosen = request.POST.get("language", "")
    if (
        request.method == "POST"
        and request.user.is_authenticated
        and chosen in dict(settings.LANGUAGES)
    ):
        request.user.language = chosen
        request.user.save(update_fields=["language"])
    return set_language(request)


@login_required
@require_http_methods(["GET", "POST"])
def preferences(request: HtmxRequest) -> HttpResponse:
    """How the portal looks and speaks to this person."""
    form = PreferencesForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        with translation.override(request.user.language or translation.get_language()):
            messages.success(request, _("Saved."))
        return redirect("preferences")
    status = 400 if form.is_bound else 200
    return render(request, "support/account/preferences.html", {"form": form}, status=status)


@login_required
@require_POST
def use_keys(request: HtmxRequest) -> HttpResponse:
    """Switch the keys of the desk on or off, from the desk itself."""
    request.user.uses_keys = "on" in request.POST
    request.user.save(update_fields=["uses_keys"])
    return HttpResponse(status=204)


@login_required
@require_http_methods(["GET", "POST"])
@proof_required
def export(request: HtmxRequest) -> HttpResponse | StreamingHttpResponse:
    """A page that says what is held; its button gives all of it as a file."""
    if request.method == "GET":
        return render(request, "support/account/export.html")
    return StreamingHttpResponse(
        exporting.export(request.user),
        content_type="application/json",
        headers={
            "Content-Disposition": 'attachment; filename="askonce.json"',
            "Cache-Control": "no-store",
        },
    )


@login_required
@require_http_methods(["GET", "POST"])
@proof_required
def erase(request: HtmxRequest) -> HttpResponse:
    """Leave for good, after the name was typed and the person proved once more who they are."""
    form = EraseForm(request.POST or None, person=request.user)
    if request.method == "POST" and form.is_valid():
        try:
            erasing.erase(person=request.user, by=request.user)
        except (erasing.LastAdmin, merging.ThreadsMoved) as error:
            form.add_error(None, str(error))
            context = {"form": form}
            return render(request, "support/account/erase.html", context, status=409)
        logout(request)
        messages.success(request, _("Your account is erased. Thank you for having been here."))
        return redirect("home")
    status = 400 if form.is_bound else 200
    return render(request, "support/account/erase.html", {"form": form}, status=status)
