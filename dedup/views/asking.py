"""Search, the ask page, similar questions while somebody writes."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import desk, review, suggesting
from dedup.suggesting import Suggestions
from support import asking, guests, merging, thread
from support.forms import GuestQuestionForm, QuestionForm
from support.http import HtmxRequest, client_of, wait_words
from support.models import Product, Question, User

SHORTEST_SEARCH = 3


@require_GET
def home(request: HtmxRequest) -> HttpResponse:
    """One box; what resembles the words and their meaning, or the newest questions."""
    query = request.GET.get("q", "").strip()[:200]
    product = Product.objects.filter(slug=request.GET.get("product", "")).first()
    state = request.GET.get("state", "")
    context: dict[str, Any] = {
        "query": query,
        "product": product,
        "state": state,
        "products": Product.objects.order_by("name"),
    }
    if len(query) >= SHORTEST_SEARCH:
        found = suggesting.similar(
            title=query, reader=request.user, product_id=product.pk if product else None, limit=15
        )
        context |= {"found": _in_state(found.questions, state), "by_meaning": found.by_meaning}
    else:
        newest = Question.objects.visible_to(request.user).live().with_answered()
        newest = newest.filter(product=product) if product else newest
        if state in {"answered", "open"}:
            newest = newest.filter(answered=state == "answered")  # type: ignore[misc]
        newest = newest.select_related("product").order_by("-asked_at", "-pk")
        context["page"] = Paginator(newest, 15).get_page(request.GET.get("page"))
    return render(request, "dedup/home.html", context)


def _in_state(questions: list[Question], state: str) -> list[Question]:
    if state not in {"answered", "open"}:
        return questions
    return [q for q in questions if q.answered == (state == "answered")]  # type: ignore[attr-defined]


@require_http_methods(["GET", "POST"])
def ask(request: HtmxRequest) -> HttpResponse:
    """The form; without JavaScript, similar questions come as a second step before it is stored.

    Who is not signed in gives a mail address too, and confirms it before the question is stored.
    """
    initial = {"title": request.GET.get("title", "")[:200], "audience": "public"}
    form_class = QuestionForm if request.user.is_authenticated else GuestQuestionForm
    form = form_class(request.POST or None, initial=initial)
    found = None
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        if "seen_similar" not in request.POST:
            found = suggesting.similar(
                title=given["title"], body=given["body"], reader=request.user, limit=5
            )
        if found is None or not found.questions:
            if not request.user.is_authenticated:
                return _ask_as_guest(request, form)
            question = asking.submit_question(
                product=given["product"], title=given["title"], body=given["body"],
                audience=given["audience"], by=request.user,
            )  # fmt: skip
            said = _("Your question is received. You will hear of answers by mail.")
            messages.success(request, said)
            return redirect(question)
    status = 400 if form.errors else 200
    context = {"form": form, "found": found, "similar": _with_openings(found, request.user)}
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
        response = render(request, "dedup/ask.html", {"form": form}, status=429)
        response["Retry-After"] = str(error.seconds)
        return response
    request.session["confirm_address"] = waiting.email
    return redirect("confirm_sent")


def _with_openings(
    found: Suggestions | None, reader: User | AnonymousUser
) -> list[tuple[Question, str]]:
    """What was found, each with the text of its first answer, if there is one."""
    questions = found.questions if found else []
    openings = thread.openings(questions, reader) if questions else {}
    return [(question, openings.get(question.pk, "")) for question in questions]


@require_POST
def similar(request: HtmxRequest) -> HttpResponse:
    """Similar questions while somebody writes. A POST: a draft belongs in no log of addresses."""
    title = request.POST.get("title", "").strip()[:200]
    body = request.POST.get("body", "")[:20_000]
    found = None
    if len(title) >= 10 and "\0" not in title + body:
        found = suggesting.similar(title=title, body=body, reader=request.user)
    context = {"similar": _with_openings(found, request.user), "while_writing": True}
    return render(request, "dedup/similar.html", context | {"is_asked": found is not None})


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
