"""Search, the ask page, similar questions while somebody writes, and what came of those."""

import uuid
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import deflection, desk, review, searching, suggesting
from dedup.suggesting import Suggestions
from support import asking, guests, merging, thread
from support.forms import GuestQuestionForm, QuestionForm
from support.http import HtmxRequest, client_of, wait_words
from support.models import Product, Question, User

SHORTEST_TITLE = 10  # characters, before anything like it is looked for
LARGEST_DIFFERENCE = 300
MOST_SOLVED = 5  # times of asking that a session remembers as solved


@require_GET
def home(request: HtmxRequest) -> HttpResponse:
    """One box; what resembles the words and their meaning, or the newest questions."""
    query = request.GET.get("q", "").strip()[:200]
    product = Product.objects.filter(slug=request.GET.get("product", "")).first()
    state, language = request.GET.get("state", ""), request.GET.get("language", "")
    page = request.GET.get("page", "1")
    context: dict[str, Any] = {
        "query": query,
        "product": product,
        "state": state,
        "wanted_language": language,  # `language` is the page's own
        "products": Product.objects.order_by("name"),
        "languages": searching.languages(),
    }
    if len(query) >= searching.SHORTEST:
        context["results"] = results = searching.search(
            query, request.user, product=product, state=state, language=language, page=page
        )
        context["page"] = results.page
    else:
        filters = searching.Filters(product, state, language)
        context["page"] = searching.newest(request.user, filters, page)
    return render(request, "dedup/home.html", context)


@require_http_methods(["GET", "POST"])
def ask(request: HtmxRequest) -> HttpResponse:
    """The form; without JavaScript, similar questions come as a second step before it is stored.

    Who is not signed in gives a mail address too, and confirms it before the question is stored.
    """
    form_class = QuestionForm if request.user.is_authenticated else GuestQuestionForm
    form = form_class(_given(request) if request.method == "POST" else None, initial={
        "title": request.GET.get("title", "")[:200], "audience": "public",
        "product": Product.objects.filter(slug=request.GET.get("product", "")).first(),
    })  # fmt: skip
    found = None
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        is_edited = "add_difference" in request.POST  # looked at once more before it is sent
        if is_edited or "seen_similar" not in request.POST:
            found = suggesting.similar(
                title=given["title"], body=given["body"], reader=request.user
            )
            _note_shown(request, found, given["product"])
        if not is_edited and (found is None or not found.found):
            if not request.user.is_authenticated:
                return _ask_as_guest(request, form)
            question = asking.submit_question(
                product=given["product"], title=given["title"], body=given["body"],
                audience=given["audience"], by=request.user,
            )  # fmt: skip
            _note_asked(request, question)
            said = _("Your question is received. You will hear of answers by mail.")
            messages.success(request, said)
            return redirect(question)
    status = 400 if form.errors else 200
    context = {
        "form": form,
        "is_second_step": found is not None,
        "difference_words": _difference_words(),
        **_shown(found, request.user),
    }
    return render(request, "dedup/ask.html", context, status=status)


def _ask_as_guest(request: HtmxRequest, form: QuestionForm) -> HttpResponse:
    given = form.cleaned_data
    try:
        waiting = guests.put_question(
            email=given["email"], product=given["product"], title=given["title"],
            body=given["body"], audience=given["audience"], client=client_of(request),
            now=timezone.now(),
        )  # fmt: skip
    except guests.TooMany as error:  # what was typed stays
        form.add_error("email", wait_words(error.seconds))
        context = {"form": form, "difference_words": _difference_words()}
        response = render(request, "dedup/ask.html", context, status=429)
        response["Retry-After"] = str(error.seconds)
        return response
    _note_asked(request, None)
    request.session["confirm_address"] = waiting.email
    return redirect("confirm_sent")


def _given(request: HtmxRequest) -> Any:
    """The form as it was sent; what somebody says is different stands at the end of the details."""
    given = request.POST.copy()
    difference = given.get("difference", "").strip()[:LARGEST_DIFFERENCE]
    if difference:
        said = _difference_words() % {"difference": difference}
        given["body"] = f"{given.get('body', '').rstrip()}\n\n{said}".lstrip()
    return given


def _difference_words() -> str:
    return _("What is different: %(difference)s")


def _shown(found: Suggestions | None, reader: User | AnonymousUser) -> dict[str, Any]:
    """What a template shows: each suggestion with the beginning of the answer that stands first."""
    suggestions = found.found if found else []
    questions = [one.question for one in suggestions]
    openings = thread.openings(questions, reader) if questions else {}
    similar = [(one, openings.get(one.question.pk, "")) for one in suggestions]
    return {"found": found, "similar": similar}


@require_POST
def similar(request: HtmxRequest) -> HttpResponse:
    """Similar questions while somebody writes. A POST: a draft belongs in no log of addresses."""
    title = request.POST.get("title", "").strip()[:200]
    body = request.POST.get("body", "")[:20_000]
    found = None
    if len(title) >= SHORTEST_TITLE and "\0" not in title + body:
        found = suggesting.similar(title=title, body=body, reader=request.user)
        chosen = request.POST.get("product", "")
        is_number = chosen.isascii() and chosen.isdigit() and len(chosen) < 18
        product = Product.objects.filter(pk=chosen).first() if is_number else None
        _note_shown(request, found, product)
    context = {"while_writing": True, **_shown(found, request.user)}
    return render(request, "dedup/similar.html", context)


@require_POST
def opened(request: HtmxRequest) -> HttpResponse:
    """A suggestion was opened; which one is nobody's business."""
    deflection.note_opened(asking=_asking(request), now=timezone.now())
    return HttpResponse(status=204)


@require_POST
def solved(request: HtmxRequest) -> HttpResponse:
    """ "This solved it": thanks, and on to the question. The draft stays in the browser."""
    pk = request.POST.get("question", "")
    is_number = pk.isascii() and pk.isdigit() and len(pk) < 18
    readable = Question.objects.visible_to(request.user).select_related("product")
    question = get_object_or_404(readable, pk=pk if is_number else 0)
    ended = deflection.note_solved(
        asking=_asking(request), question=question, by=_person(request), now=timezone.now()
    )
    request.session.pop("asking", None)
    before = request.session.get("solved", [])
    request.session["solved"] = [*before, str(ended)][-MOST_SOLVED:]
    messages.success(request, _("Good that it is solved, and thank you for saying so."), "solved")
    return redirect(question)


def _person(request: HtmxRequest) -> User | None:
    return request.user if request.user.is_authenticated else None


def _asking(request: HtmxRequest) -> uuid.UUID | None:
    """The time of asking that this session is in, if something was shown."""
    known = request.session.get("asking")
    return uuid.UUID(known) if known else None


def _note_shown(request: HtmxRequest, found: Suggestions, product: Product | None) -> None:
    if found.found:
        before = _asking(request)
        asking_id = deflection.note_shown(
            asking=before, count=len(found.found), product=product, by=_person(request),
            now=timezone.now(),
        )  # fmt: skip
        if asking_id != before:
            request.session["asking"] = str(asking_id)


def _note_asked(request: HtmxRequest, question: Question | None) -> None:
    """The question is none yet where a guest has to confirm the address first."""
    deflection.note_asked(
        asking=_asking(request),
        solved=[uuid.UUID(known) for known in request.session.get("solved", [])],
        question=question, by=_person(request), now=timezone.now(),
    )  # fmt: skip
    request.session.pop("asking", None)


@login_required
@require_POST
def dispute(request: HtmxRequest, pk: int) -> HttpResponse:
    """ "Mine is different": the asker of a merged question has it looked at again."""
    question = get_object_or_404(Question.objects.visible_to(request.user), pk=pk)
    try:
        desk.dispute(question=question, by=request.user, reason=request.POST.get("reason", ""))
        messages.success(request, _("Thank you. Our team will look at it again."))
    except (review.ReviewRefused, merging.MergeRefused) as error:
        messages.error(request, str(error))
    return redirect(question)
