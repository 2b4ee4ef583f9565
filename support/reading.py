"""How somebody reads the portal: in which language, by which clock.

What a person chose comes first, then what their browser says, then what the site is set to.
"""

from collections.abc import Callable
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation

from support.http import is_for_program

ZONE_COOKIE = "zone"  # set by a script of ours: no header tells it
NO_PLACES = ("Etc/", "SystemV/", "US/", "posix/", "right/")  # older names of other zones


@cache
def zones() -> tuple[str, ...]:
    """The names of all time zones that a person may choose."""
    places = {name for name in available_timezones() if "/" in name}
    return ("UTC", *sorted(name for name in places if not name.startswith(NO_PLACES)))


def as_the_reader_likes(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer in the reader's language and by the reader's clock; programs get what they had."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if is_for_program(request):
            return get_response(request)
        if language := _chosen_language(request):
            translation.activate(language)
            request.LANGUAGE_CODE = translation.get_language()
        with timezone.override(zone_of(request)):
            return get_response(request)

    return middleware


def zone_of(request: HttpRequest) -> ZoneInfo:
    """The clock of who asks. A name that is no zone counts for nothing."""
    chosen = request.user.time_zone if request.user.is_authenticated else ""
    wanted = (chosen, request.COOKIES.get(ZONE_COOKIE, ""), settings.TIME_ZONE)
    return ZoneInfo(next(name for name in wanted if name in zones()))


def _chosen_language(request: HttpRequest) -> str:
    """What the person chose, where the site still speaks it."""
    language = request.user.language if request.user.is_authenticated else ""
    return language if language in dict(settings.LANGUAGES) else ""
