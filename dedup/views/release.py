"""What admins see of one release: what it is, what it is worth, how fast it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_GET, require_POST

from dedup import jobs, reports
from dedup.gates import KINDS, points, value_words
from dedup.ml.evaluation import Bin
from dedup.models import Job, Release, Report
from dedup.models.job import JobQuerySet
from dedup.templatetags.charts import Mark, Series, interval_words, number_words, share_words
from support.http import HtmxRequest
from support.models import Product
from support.templatetags.texts import in_percent, language

FIGURES = {
    "average_precision": gettext_lazy("Ranking (average precision, AP)"),
    "recall_at_wanted": gettext_lazy("Duplicates found at the wanted precision (recall)"),
    "precision": gettext_lazy("Flags that are right, at the threshold (precision)"),
    "recall": gettext_lazy("Duplicates found, at the threshold (recall)"),
    "calibration_error": gettext_lazy(
        "How far probabilities are off (expected calibration error, ECE)"
    ),
}
SEGMENT_FIGURES = ("average_precision", "precision", "recall", "calibration_error")
LESS_IS_BETTER = {"calibration_error"}
METRICS = {
    "AP": gettext_lazy("ranking (average precision, AP)"),
    "MAP": gettext_lazy("ranking, mean over questions (MAP)"),
    "MRR": gettext_lazy("how far up the first right one stands (MRR)"),
}

may_see = permission_required("dedup.activate_release", raise_exception=True)


@dataclass(frozen=True)
class Figure:
    """A share with its interval, in words and as places on a line of a hundred."""

    name: str
    words: str
    between: str
    at: str
    low: str
    high: str

    @classmethod
    def of(cls, name: str, found: Mapping[str, float]) -> "Figure":
        """Out of a report; the line reads points, never commas."""
        at, low, high = (f"{100 * found[key]:.1f}" for key in ("value", "low", "high"))
        between = interval_words((found["low"], found["high"]), is_share=True)
        return cls(name, share_words(found["value"]), between, at, low, high)


@dataclass(frozen=True)
class Lead:
    """How far a figure is from another release's, in points, and what can be told of that."""

    name: str
    words: str
    between: str
    chance: str
    verdict: str
    kind: str

    @classmethod
    def of(cls, key: str, found: Mapping[str, float]) -> "Lead":
        """Out of a report."""
        between = _("%(low)s to %(high)s") % {k: points(found[k]) for k in ("low", "high")}
        is_more, is_less = found["low"] > 0, found["high"] < 0
        if key in LESS_IS_BETTER:
            is_more, is_less = is_less, is_more
        verdict = _("better") if is_more else _("worse") if is_less else _("cannot be told apart")
        kind = "good" if is_more else "bad" if is_less else "waiting"
        chance = number_words(round(found["p"], 3))
        return cls(str(FIGURES[key]), points(found["value"]), between, chance, verdict, kind)


NOTHING = {"pairs": 0, "duplicates": 0, "clusters": 0}  # of a report that looked at no own pairs


@require_GET
@may_see
def show(request: HtmxRequest, pk: int) -> HttpResponse:
    """A release with its newest report."""
    release = get_object_or_404(Release.objects.select_related("activated_by"), pk=pk)
    report = reports.newest(release)
    last = measurements().filter(params__release=pk).order_by("-pk").first()
    context = {
        "release": release,
        "has_files": reports.has_files(release),
        "facts": facts(release),
        **being_measured(release),
        "failed": last if last and last.state == Job.State.FAILED else None,
        "may_start": request.user.has_perm("dedup.start_job"),
        "report": report,
        **(of_report(report) if report else {}),
    }
    return render(request, "dedup/release.html", context)


def measurements() -> JobQuerySet:
    """Evaluations, of whatever release."""
    return Job.objects.filter(kind=Job.Kind.EVALUATE)


def being_measured(release: Release) -> dict[str, Any]:
    """What `dedup/being_measured.html` shows: the evaluation under way, and whether it is of this
    release."""
    running = measurements().unfinished().first()
    return {
        "running": running,
        "is_of_this": running and running.params.get("release") == release.pk,
    }


def facts(release: Release) -> list[tuple[str, str]]:
    """What stands in the head: names and values."""
    raw = release.manifest
    labels, parent = raw.get("labels") or {}, raw.get("parent") or {}
    known = [
        (_("Fingerprint"), release.fingerprint[:16]),
        (_("Made from"), str(parent.get("name") or raw.get("base") or "")),
        (_("Labels learned from"), number_words(labels["train"]) if "train" in labels else ""),
        (_("Languages"), ", ".join(language(code) for code in sorted(release.languages))),
        (_("Flags from"), in_percent(release.threshold)),
        (_("Suggests from"), in_percent(release.suggestion_floor)),
        (_("Is sure from"), in_percent(release.sure_threshold)),
    ]
    return [(name, value) for name, value in known if value]


def of_report(report: Report) -> dict[str, Any]:
    """What a template shows of a report."""
    figures = report.figures
    own, speed = NOTHING | figures.get("own", {}), figures.get("speed")
    against = own.get("against", {}).get("release", "")
    found, leads = own.get("figures", {}), own.get("leads", {})
    return {
        "own": own,
        "against": against,
        "wanted": share_words(own["wanted_precision"]) if "wanted_precision" in own else "",
        "figures": [Figure.of(str(FIGURES[key]), found[key]) for key in FIGURES if key in found],
        "leads": [Lead.of(key, leads[key]) for key in FIGURES if key in leads],
        "curve": curves(report, own),
        "curve_marks": [Mark(_("Wanted precision"), own["wanted_precision"])]
        if "wanted_precision" in own
        else [],
        "bins": [Bin(**one) for one in own.get("reliability", [])],
        "segments": segments(own.get("segments", {})),
        "speed": speed_facts(speed) if speed else [],
        "sets": sets_of(figures.get("sets", {})),
        "limits": limits(report),
    }


def curves(report: Report, own: Mapping[str, Any]) -> list[Series]:
    """Precision over recall, of the release with its interval, and of the other one."""
    points = own.get("curve", [])
    if not points:
        return []
    recalls = [point["recall"] for point in points]
    found = [
        Series(
            report.figures["release"], [(p["recall"], p["precision"]) for p in points],
            [(p["low"], p["high"]) for p in points],
        )
    ]  # fmt: skip
    other = own.get("against", {})
    if other.get("curve"):
        found.append(Series(other["release"], list(zip(recalls, other["curve"], strict=True))))
    return found


def segments(found: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each kind of segment its rows: words, counts, figures, and the lead in ranking."""
    names = dict(Product.objects.values_list("slug", "name"))
    kinds = [kind for kind in KINDS if kind in found] + sorted(found.keys() - KINDS.keys())
    return [
        (str(KINDS.get(kind, kind)), [segment_row(kind, row, names) for row in found[kind]])
        for kind in kinds
    ]


def segment_row(kind: str, row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A segment in words; without figures where too few were decided."""
    known, lead = row["figures"], row["leads"].get("average_precision")
    return {
        **row,
        "words": value_words(kind, row["value"], names),
        "figures": [
            Figure.of(key, known[key]) if key in known else None for key in SEGMENT_FIGURES
        ],
        "lead": lead and Lead.of("average_precision", lead),
    }


def speed_facts(speed: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How fast it was, and where: names and values."""
    asked = _("One question against %(count)s") % {"count": speed["candidates"]}
    return [
        (asked, _("%(number)s ms") % {"number": number_words(round(speed["milliseconds_median"]))}),
        (_("Pairs a second"), number_words(round(speed["pairs_a_second"]))),
        (
            _("Processor time for 1,000 questions"),
            _("%(number)s s") % {"number": number_words(round(speed["cpu_seconds_per_1000"]))},
        ),
        (_("Measured on"), f"{speed['processor']}, {speed['precision']}"),
    ]


def sets_of(found: Mapping[str, Any]) -> list[tuple[str, int, str, str, str, str]]:
    """Rows of the fixed sets that were measured on, where any were."""
    rows = {**found.get("sets", {}), **found.get("intents", {})}
    rows = {key: found[key] for key in ("shortlists", "topics", "links") if key in found} | rows
    return [
        (name, row["rows"], str(METRICS.get(row["metric"], row["metric"])),
         *(share_words(row[kind]) for kind in ("release", "cosine", "tfidf")))
        for name, row in rows.items()
    ]  # fmt: skip


def limits(report: Report) -> list[str]:
    """What the figures cannot say."""
    own = report.figures.get("own")
    if not own:
        return []
    fewest = own["fewest"]
    others = [row["value"] for row in own["segments"].get("language", [])]
    unknown = sorted({code for code in others if code} - report.release.languages)
    found = [
        _("Counted are pairs that a check compared. Duplicates that no shortlist held are missed in"
          " all figures alike."),
        _("Only verdicts on pairs that the machine asked about count, weighed by how probable that"
          " was. Merges made by hand and pairs chosen to learn from are left out."),
        ngettext(
            "Nothing is said of fewer than %(pairs)s pair, or of fewer than %(duplicates)s"
            " duplicates or others among them.",
            "Nothing is said of fewer than %(pairs)s pairs, or of fewer than %(duplicates)s"
            " duplicates or others among them.",
            fewest["pairs"],
        ) % {"pairs": fewest["pairs"], "duplicates": fewest["duplicates"]},
        _("An interval holds what is true about 95 times in 100: of twenty segments about one is"
          " outside of its own by chance alone."),
        _("People err too: a figure is how far the release agrees with them."),
    ]  # fmt: skip
    if unknown:
        names = ", ".join(language(code) for code in unknown)
        found.append(_("It was made for other languages than: %(names)s.") % {"names": names})
    return found


@require_POST
@permission_required(["dedup.activate_release", "dedup.start_job"], raise_exception=True)
def evaluate(request: HtmxRequest, pk: int) -> HttpResponse:
    """Have a release measured in the background."""
    release = get_object_or_404(Release, pk=pk)
    try:
        jobs.start(kind=Job.Kind.EVALUATE, params={"release": release.pk}, by=request.user)
        messages.success(request, _("It is being measured. The report comes onto this page."))
    except jobs.JobRuns:
        messages.error(request, _("A release is being measured already. Try again after it."))
    return redirect("release", pk)


@require_GET
@may_see
def download(request: HtmxRequest, pk: int) -> StreamingHttpResponse:
    """The release's folder as a zip."""
    release = get_object_or_404(Release, pk=pk)
    files = reports.files_of(release)
    if not files:
        raise Http404
    response = StreamingHttpResponse(
        reports.zipped(files, release.name), content_type="application/zip"
    )
    response["Content-Disposition"] = content_disposition_header(
        as_attachment=True, filename=f"{release.name}.zip"
    )
    return response


@require_GET
@may_see
def card(request: HtmxRequest, pk: int) -> HttpResponse:
    """The model card; as a file where `file` is asked for."""
    release = get_object_or_404(Release, pk=pk)
    text = reports.card_of(release)
    if not text:
        raise Http404
    if "file" not in request.GET:
        return render(request, "dedup/release_card.html", {"release": release, "card": text})
    response = HttpResponse(text, content_type="text/markdown; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(
        as_attachment=True, filename=f"{release.name}.md"
    )
    return response
