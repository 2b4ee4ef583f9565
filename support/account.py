"""Pages of one's own account: what a person can set, take away and erase."""

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from support import erasing, exporting, merging
from support.forms import EraseForm, PreferencesForm
from support.http import HtmxRequest


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
@reauthentication_required(allow_get=True)
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
@reauthentication_required(allow_get=True)
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
