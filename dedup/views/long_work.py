"""Long work: started, watched and stopped by admins."""

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dedup import backfilling, jobs, starting
from dedup.forms import AdoptingForm, TrainingForm, add_refusal
from dedup.models import Job
from support.http import HtmxRequest

ON_A_PAGE = 20  # jobs
starters_only = permission_required("dedup.start_job", raise_exception=True)


@require_GET
@starters_only
def show_jobs(request: HtmxRequest) -> HttpResponse:
    """What was started, newest first, and forms to start more."""
    return _page(request)


@require_GET
@starters_only
def show_job(request: HtmxRequest, pk: int) -> HttpResponse:
    """How far a job is; asked by the page's script, only the part that changes."""
    job = get_object_or_404(Job.objects.select_related("by"), pk=pk)
    if not request.htmx:
        return render(request, "dedup/job.html", {"job": job})
    response = render(request, "dedup/job_progress.html", {"job": job})
    if job.is_finished:
        response["HX-Refresh"] = "true"  # what came of it stands on the whole page
    return response


@require_POST
@starters_only
def start_training(request: HtmxRequest) -> HttpResponse:
    """Put the training of a release in line."""
    form = TrainingForm(request.POST)
    if form.is_valid():
        try:
            return redirect("job", starting.training(by=request.user, **form.cleaned_data).pk)
        except starting.StartRefused as refused:
            add_refusal(form, refused)
        except jobs.JobRuns:
            return _to_running(request, Job.Kind.TRAIN)
    return _page(request, training=form)


@require_POST
@starters_only
def start_adopt(request: HtmxRequest) -> HttpResponse:
    """Put the taking of a checkpoint in line."""
    form = AdoptingForm(request.POST)
    if form.is_valid():
        try:
            return redirect("job", starting.adopting(by=request.user, **form.cleaned_data).pk)
        except starting.StartRefused as refused:
            add_refusal(form, refused)
        except jobs.JobRuns:
            return _to_running(request, Job.Kind.ADOPT)
    return _page(request, adopting=form)


@require_POST
@starters_only
def start_backfill(request: HtmxRequest) -> HttpResponse:
    """Put the search for duplicates among all questions that nobody ever compared in line."""
    try:
        return redirect("job", backfilling.begin(kind=Job.Kind.BACKFILL, by=request.user).pk)
    except jobs.JobRuns:
        return _to_running(request, Job.Kind.BACKFILL)


@require_POST
@starters_only
def stop_job(request: HtmxRequest, pk: int) -> HttpResponse:
    """Ask that a job ends."""
    job = jobs.stop(job=get_object_or_404(Job, pk=pk), by=request.user)
    if job.is_finished and job.state != Job.State.STOPPED:
        messages.info(request, _("It had ended already."))
    return redirect("job", job.pk)


def _to_running(request: HtmxRequest, kind: str) -> HttpResponse:
    messages.error(request, _("One of this kind waits or runs already: here it is."))
    running = Job.objects.unfinished().filter(kind=kind).first()
    return redirect("job", running.pk) if running else redirect("jobs")


def _page(
    request: HtmxRequest,
    *,
    training: TrainingForm | None = None,
    adopting: AdoptingForm | None = None,
) -> HttpResponse:
    is_refused = training is not None or adopting is not None
    started = Job.objects.select_related("by").order_by("-pk")
    context = {
        "page": Paginator(started, ON_A_PAGE).get_page(request.GET.get("page")),
        "training": training or TrainingForm(initial=starting.defaults()),
        "adopting": adopting or AdoptingForm(),
        "checkpoints": [folder.name for folder in starting.checkpoints()],
    }
    return render(request, "dedup/jobs.html", context, status=422 if is_refused else 200)
