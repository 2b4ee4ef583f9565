"""What admins see of what came of suggestions."""

from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from dedup import agreement, deflection
from support.http import HtmxRequest
from support.models import Product


@require_GET
@permission_required("support.merge_question", raise_exception=True)
def show_deflection(request: HtmxRequest) -> HttpResponse:
    """How many were shown something while asking, and what they did then."""
    wanted, now = request.GET.get("days", ""), timezone.now()
    days = next((days for days in deflection.PERIODS if str(days) == wanted), 30)
    product = Product.objects.filter(slug=request.GET.get("product", "")).first()
    context = {
        "days": days,
        "periods": deflection.PERIODS,
        "product": product,
        "figures": deflection.figures(days=days, now=now, product=product),
        "by_product": deflection.by_product(days=days, now=now),
        "fewest": agreement.FEWEST,
        "kept_days": deflection.KEPT.days,
        "anyway_hours": int(deflection.ANYWAY.total_seconds()) // 3600,
    }
    return render(request, "dedup/deflection.html", context)
