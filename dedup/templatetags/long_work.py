"""How long work took and still takes, in words."""

from datetime import timedelta

from django import template
from django.utils.translation import gettext, ngettext

register = template.Library()


@register.filter
def time_left(seconds: float) -> str:
    """About how long, no more exactly than anybody can know."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return gettext("less than a minute left")
    if minutes < 90:
        said = ngettext("about %(count)d minute left", "about %(count)d minutes left", minutes)
        return said % {"count": minutes}
    hours = round(minutes / 60)
    said = ngettext("about %(count)d hour left", "about %(count)d hours left", hours)
    return said % {"count": hours}


@register.filter
def lasted(time: timedelta | None) -> str:
    """How long something took: 12 s, 3 min 20 s, 1 h 5 min."""
    if time is None:
        return "–"
    seconds = max(0, round(time.total_seconds()))
    if seconds < 60:
        return gettext("%(number)s s") % {"number": seconds}
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        known = {"minutes": minutes, "seconds": seconds}
        return gettext("%(minutes)s min %(seconds)s s") % known
    hours, minutes = divmod(minutes, 60)
    return gettext("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}


@register.filter
def said(step: str) -> str:
    """What a job does just now, in the reader's language as far as we have words for it."""
    words, comma, rest = step.partition(", ")
    return f"{gettext(words)}{comma}{rest}" if words else ""
