"""Pages of the portal. Each change is a POST that redirects."""

from allauth.account.models import EmailAddress
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from support import answering, asking, mailing, merging, notifications, thread
from support.forms import AnswerForm, EditForm
from support.http import HtmxRequest
from support.models import Answer, OutboxEntry, Question, User
from support.models.question import QuestionQuerySet


def readable(request: HttpRequest) -> QuestionQuerySet:
    """What this person may read; everything else is the same 404."""
    return Question.objects.visible_to(request.user).select_related("product", "asked_by")


@require_GET
def question(request: HtmxRequest, pk: int) -> HttpResponse:
    """A thread. A duplicate's address leads to its canonical: 302, for it can be undone."""
    found = get_object_or_404(readable(request), pk=pk)
    if found.canonical_id and readable(request).filter(pk=found.canonical_id).exists():
        return redirect(f"{reverse('question', args=[found.canonical_id])}?duplicate={found.pk}")
    return show_thread(request, found, AnswerForm())


def show_thread(
    request: HtmxRequest, found: Question, form: AnswerForm, status: int = 200
) -> HttpResponse:
    """The page of a live question."""
    came_from = request.GET.get("duplicate", "")
    read = thread.read(found, request.user)
    context = {
        "thread": read,
        "question": read.question,
        "form": form,
        "duplicate": next((d for d in read.duplicates if str(d.pk) == came_from), None),
        "asked_here": _asked_by(request, read.members),
    }
    if request.user.is_authenticated and request.user.is_agent:
        check = OutboxEntry.objects.filter(question=found).first()
        context["check"] = check if check and check.is_unchecked else None
        context["was_never_put"] = check is None
        context["history"] = thread.history(found)
        context["merges"] = thread.merges_in_force(found)
        context["may_merge"] = request.user.may_merge(found.product_id)
    return render(request, "support/question.html", context, status=status)


def _asked_by(request: HttpRequest, members: list[Question]) -> Question | None:
    """The question of a thread for which this person may say what solved it."""
    return next((member for member in members if member.asked_by_id == request.user.pk), None)


@login_required
@require_http_methods(["GET", "POST"])
def edit(request: HtmxRequest, pk: int) -> HttpResponse:
    """The asker changes their question; an edit on a stale page gets 409 and what is there now."""
    found = get_object_or_404(readable(request).filter(asked_by=request.user), pk=pk)
    form = EditForm(request.POST or None, instance=found, initial={"seen": found.version})
    status = 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            given = form.cleaned_data
            try:
                asking.edit_question(
                    question=found, title=given["title"], body=given["body"],
                    audience=given["audience"], by=request.user, seen=given["seen"],
                )  # fmt: skip
                return redirect(found)
            except merging.MergeRefused as error:
                form.add_error(None, str(error))
                status = 409
    context = {"form": form, "question": found}
    if status == 409:
        context["stored"] = readable(request).get(pk=pk)  # the form wrote on the other one
    return render(request, "support/edit.html", context, status=status)


@login_required
@require_POST
def answer(request: HtmxRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(readable(request), pk=pk)
    form = AnswerForm(request.POST)
    if not form.is_valid():
        return show_thread(request, found, form, status=400)
    written = answering.post_answer(question=found, body=form.cleaned_data["body"], by=request.user)
    return redirect(f"{written.question.get_absolute_url()}#answer-{written.pk}")


@login_required
@require_POST
def vote(request: HtmxRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(readable(request), pk=pk)
    answering.set_vote(question=found, by=request.user, wanted="on" in request.POST)
    return redirect(found)


@login_required
@require_POST
def answer_vote(request: HtmxRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(Answer.objects.filter(question__in=readable(request)), pk=pk)
    answering.set_answer_vote(answer=found, by=request.user, wanted="on" in request.POST)
    return redirect(f"{found.question.get_absolute_url()}#answer-{found.pk}")


@login_required
@require_POST
def follow(request: HtmxRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(readable(request), pk=pk)
    answering.set_following(question=found, by=request.user, wanted="on" in request.POST)
    return redirect(found)


@login_required
@require_POST
def accept(request: HtmxRequest, pk: int, answer_pk: int) -> HttpResponse:
    found = get_object_or_404(readable(request).filter(asked_by=request.user), pk=pk)
    given = get_object_or_404(Answer.objects.filter(question__in=readable(request)), pk=answer_pk)
    try:
        answering.accept_answer(question=found, answer=given, by=request.user)
    except answering.NotInThread:
        messages.error(request, _("That answer belongs to another question."))
    return redirect(found)


@login_required
@require_GET
def mine(request: HtmxRequest) -> HttpResponse:
    """One's own questions and the threads that one follows."""
    standing = readable(request).filter(pk=OuterRef("canonical"))
    asked = readable(request).filter(asked_by=request.user).with_answered()
    asked = asked.annotate(is_merged=Exists(standing))
    follows = Question.objects.filter(subscriptions__subscriber=request.user)
    is_followed = Q(pk__in=follows.values("pk")) | Q(pk__in=follows.values("canonical"))
    followed = readable(request).live().filter(is_followed)
    context = {
        "unconfirmed": unconfirmed_address(request.user),
        "page": Paginator(asked.order_by("-asked_at", "-pk"), 20).get_page(request.GET.get("page")),
        "followed": followed.with_answered().order_by("-asked_at", "-pk")[:20],
    }
    return render(request, "support/mine.html", context)


def unconfirmed_address(person: User) -> str:
    """The mail address at which somebody will hear of nothing until they confirm it, or nothing."""
    mine = EmailAddress.objects.filter(user=person, email__iexact=person.email, verified=True)
    return "" if mine.exists() else person.email


@csrf_exempt  # mail programs post here by themselves (RFC 8058), without cookie or login
@require_http_methods(["GET", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """End mail about a question, or all of it. A POST answers itself: programs follow no 302."""
    ids = mailing.read_token(mailing.STOP, token)
    person = get_object_or_404(User, pk=ids[0]) if ids else None
    if ids is None or person is None:
        raise Http404
    found = Question.objects.filter(pk=ids[1]).first()
    done = ""
    if request.method == "POST":
        done = "all" if request.POST.get("what") == "all" or ids[1] == mailing.ALL else "question"
        if done == "all":
            notifications.stop_all(by=person)
        elif found:
            notifications.stop(question=found, by=person, now=timezone.now())
    # Who holds the mail need not be who it was for: a private title is not shown without a login.
    shown = found if found and not found.is_private else None
    context = {"done": done, "question": shown, "is_about_one": ids[1] != mailing.ALL}
    return render(request, "support/unsubscribe.html", context)
