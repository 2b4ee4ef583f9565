"""What monitoring asks about the check for duplicates."""

from django.core.cache import cache
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dedup import health
from support.api_requests import TokenAuthentication

KEY = "health_of_detection"
REMEMBERED_SECONDS = 5  # however often somebody asks, the rows are counted no oftener


def _found() -> health.Health:
    found: health.Health | None = cache.get(KEY)
    if found is None:
        found = health.look(now=timezone.now())
        cache.set(KEY, found, REMEMBERED_SECONDS)
    return found


@method_decorator(never_cache, name="dispatch")
class DetectionView(APIView):
    """200 where the check is well, else 503, and which part is not. Figures only for who sees them
    on the page too, by their token: how long a question waits says when somebody asked one."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [AllowAny]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        found = _found()
        may_see = request.user.has_perm("dedup.activate_release")
        status = 200 if found.is_well else 503
        return Response(found.told(with_figures=may_see), status=status)
