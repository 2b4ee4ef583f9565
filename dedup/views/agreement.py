"""What admins see of how the desk works."""

from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from dedup import agreement
from support.http import HtmxRequest


@require_GET
@permission_required("support.merge_question", raise_exception=True)
def show_agreement(request: HtmxRequest) -> HttpResponse:
    """How far people agree with what had been decided, and with each other."""
    context = {"rates": agreement.rates(), "kappas": agreement.kappas(), "fewest": agreement.FEWEST}
    return render(request, "dedup/agreement.html", context)
