"""The guides' pages. Everybody may read every guide: how the portal works is no secret, and half of
it is asked by people before they have the role. The role decides only what is listed first."""

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.translation import get_language, get_language_info
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from support import guide_search, guides
from support.http import HtmxRequest

LONGEST_QUERY = 200
AUDIENCES = {
    "customers": _("For everybody"),
    "agents": _("For agents"),
    "admins": _("For admins"),
    "operators": _("For operators"),
}


@require_GET
def list_guides(request: HtmxRequest) -> HttpResponse:
    """All guides, by whom they are for; with `q`, those that answer it."""
    language, order = _language(), _audiences(request.user)
    query = request.GET.get("q", "").strip()[:LONGEST_QUERY]
    hits = guide_search.search(query, language, first=order[0])
    context = {
        "query": query,
        "hits": [(hit, AUDIENCES[hit.guide.audience]) for hit in hits] if query else None,
        "lists": [(AUDIENCES[name], guides.of_audience(name, language)) for name in order],
    }
    return render(request, "support/guides.html", context)


@require_GET
def guide(request: HtmxRequest, audience: str, slug: str) -> HttpResponse:
    """One guide, in the reader's language or else in English."""
    language = _language()
    found = guides.library(language).get((audience, slug))
    if found is None:
        raise Http404
    beside = guides.of_audience(audience, language)
    place = beside.index(found)
    context = {
        "guide": found,
        "audience": AUDIENCES[audience],
        "is_translated": found.language == language,
        "direction": "rtl" if get_language_info(found.language)["bidi"] else "ltr",
        "before": beside[place - 1] if place else None,
        "after": beside[place + 1] if place + 1 < len(beside) else None,
    }
    return render(request, "support/guide.html", context)


def _language() -> str:
    return (get_language() or guides.SOURCE).partition("-")[0]


def _audiences(user: Any) -> list[str]:
    """The reader's own first."""
    if user.is_superuser:
        own = "operators"
    elif user.has_perm("support.merge_question"):
        own = "admins"
    elif user.is_authenticated and user.is_agent:
        own = "agents"
    else:
        own = "customers"
    return [own, *(name for name in guides.AUDIENCES if name != own)]
