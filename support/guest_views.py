"""Pages for people without an account: following by mail, and the link that confirms an address."""

from allauth.account.utils import perform_login
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.signing import BadSignature
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from support import answering, guests
from support.forms import GuestFollowForm
from support.guests import Confirmed
from support.http import HtmxRequest, client_of, too_many
from support.models import GuestRequest, Question


@require_POST
def follow(request: HtmxRequest, pk: int) -> HttpResponse:
    """Follow a question by mail; who is signed in meanwhile follows it at once."""
    found = get_object_or_404(Question.objects.visible_to(request.user), pk=pk)
    if request.user.is_authenticated:
        answering.set_following(question=found, by=request.user, wanted=True)
        return redirect(found)
    form = GuestFollowForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("Please give a mail address, such as name@example.com."))
        return redirect(found)
    try:
        waiting = guests.put_follow(
            email=form.cleaned_data["email"], question=found, client=client_of(request),
            now=timezone.now(),
        )  # fmt: skip
    except guests.TooMany as error:
        return too_many(request, error.seconds)
    request.session["confirm_address"] = waiting.email
    return redirect("confirm_sent")


@require_GET
def sent(request: HtmxRequest) -> HttpResponse:
    """Where somebody is told to look into their mail: the same whether we know them or not."""
    context = {"address": request.session.get("confirm_address", ""), "days": guests.LIFE.days}
    return render(request, "support/confirm_sent.html", context)


@never_cache
@require_http_methods(["GET", "POST"])
def confirm(request: HtmxRequest, token: str) -> HttpResponse:
    """Shows what waits; only the button does it, for programs that scan mail open its links."""
    try:
        waiting = guests.read(token)
        if request.method == "POST":
            done = guests.confirm(request=waiting, by=request.user, now=timezone.now())
            return _lead(request, waiting, done)
        if waiting.confirmed_at and waiting.question:
            return _lead(request, waiting, Confirmed(waiting.question))
        if waiting.question and not _may_read(request, waiting.question):
            raise guests.LinkGone
    except BadSignature as error:
        raise Http404 from error
    except (guests.LinkGone, guests.AccountClosed):
        return render(request, "support/confirm_gone.html", status=410)
    return render(request, "support/confirm.html", {"waiting": waiting})


def _may_read(request: HtmxRequest, question: Question) -> bool:
    return Question.objects.visible_to(request.user).filter(pk=question.pk).exists()


def _lead(request: HtmxRequest, waiting: GuestRequest, done: Confirmed) -> HttpResponse:
    """To the question. The first click signs a guest in; all others sign in by themselves."""
    place, is_question = done.question.get_absolute_url(), waiting.kind == waiting.Kind.QUESTION
    stranger = done.person if done.person != request.user else None  # to this browser
    if stranger and is_question and not stranger.is_guest:
        messages.success(
            request, _("Your question is received. Sign in to your account to see it.")
        )
        return _to_login(request, place)
    if done.person and is_question:
        messages.success(request, _("Your question is received. You will hear of answers by mail."))
    elif done.person:
        said = _("You follow this question now. You will hear of new answers by mail.")
        messages.success(request, said)
    if stranger and stranger.is_guest and not request.user.is_authenticated:
        return perform_login(request, stranger, redirect_url=place)
    return redirect(place) if _may_read(request, done.question) else _to_login(request, place)


def _to_login(request: HtmxRequest, place: str) -> HttpResponse:
    """Who is signed in as somebody else would only be sent on by the sign-in page."""
    if request.user.is_authenticated:
        return redirect("home")
    return redirect_to_login(place, settings.LOGIN_URL)
