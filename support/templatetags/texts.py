"""What a template cannot say: Markdown made safe, beginnings, times, languages."""

from datetime import date, datetime, timedelta

import nh3
from babel import Locale
from babel.dates import TIMEDELTA_UNITS, format_skeleton, format_time, format_timedelta
from babel.lists import format_list
from django import template
from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import get_language, gettext, to_locale
from django.utils.translation import gettext_lazy as _
from markdown_it import MarkdownIt

register = template.Library()

TAGS = {
    "a", "blockquote", "br", "code", "em", "h3", "h4", "hr", "li", "ol", "p", "pre", "s", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_markdown = MarkdownIt("js-default", {"html": False, "linkify": False}).disable("image")

ACTIONS = {
    "asked": _("asked it"),
    "edited": _("edited it"),
    "answered": _("answered"),
    "accepted": _("accepted an answer"),
    "merged": _("merged"),
    "unmerged": _("took a merge back"),
    "disputed": _("said that theirs is different"),
    "erased": _("left, and had their text erased"),
}


@register.filter
def markdown(text: str) -> SafeString:
    """Render Markdown; whatever it says, only harmless tags and web links come out."""
    rendered = nh3.clean(
        _markdown.render(text),
        tags=TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener ugc",
    )
    return SafeString(rendered)


@register.filter
def beginning(text: str, characters: int = 220) -> SafeString:
    """The first words of a Markdown text, without its marks."""
    return SafeString(Truncator(plain(text)).chars(characters))


def plain(text: str) -> SafeString:
    """A Markdown text on one line, without its marks; escaped."""
    return SafeString(" ".join(nh3.clean(_markdown.render(text), tags=set()).split()))


@register.filter
def percent(share: float) -> str:
    """0.934 as 93 %, never rounded up to certainty."""
    whole = int(share * 100 + 1e-9)  # 0.29 * 100 is a little less than 29
    return gettext("%(number)s %%") % {"number": min(99, max(1, whole))}


@register.filter
def in_percent(share: float) -> str:
    """0.1646 as 16.5 %: how a threshold is said wherever people read one.

    Programs have the share itself. What is not all is never rounded up to it.
    """
    number = 100 * share if share >= 1 else min(99.9, round(100 * share, 1))
    return gettext("%(number)s %%") % {"number": number_format(number, 1, use_l10n=True)}


@register.filter
def when(moment: datetime) -> SafeString:
    """How long ago, with the exact time for programs and on hovering."""
    local = timezone.localtime(moment)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        date_format(local, "DATETIME_FORMAT"),
        _ago(moment),
    )


@register.filter
def day(of: date) -> str:
    """A day with the name of its month: numbers alone turn round in a text from right to left."""
    of = timezone.localtime(of) if isinstance(of, datetime) else of
    return str(format_skeleton("yMMMd", of, locale=_reader()))


@register.filter
def moment(at: datetime) -> SafeString:
    """A day and the time to the minute, as for what is printed; the exact time for programs."""
    local, reader = timezone.localtime(at), _reader()
    clock = format_time(local, "short", locale=reader)
    said = str(reader.datetime_formats["medium"]).format(clock, day(at))
    return format_html('<time datetime="{}">{}</time>', local.isoformat(timespec="seconds"), said)


def _ago(moment: datetime) -> str:
    if timezone.now() - moment < timedelta(minutes=1):
        return gettext("just now")
    seconds = (timezone.now() - moment).total_seconds()
    whole = next(seconds // size * size for _unit, size in TIMEDELTA_UNITS if seconds >= size)
    passed = timedelta(
        seconds=-whole
    )  # Django's own words for it do not stand after "ago" in German
    return format_timedelta(passed, add_direction=True, threshold=1, locale=_reader())


# In this order: most browsers also name those that they are like.
BROWSERS = {
    "Firefox": "Firefox",
    "Edg": "Edge",
    "OPR": "Opera",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
SYSTEMS = {
    "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows",
    "Mac OS": "macOS", "CrOS": "ChromeOS", "Linux": "Linux",
}  # fmt: skip


@register.filter
def browser(user_agent: str) -> str:
    """What sort of browser says this of itself, and on what it runs: enough to know one's own."""
    kind = next((name for mark, name in BROWSERS.items() if mark in user_agent), "")
    system = next((name for mark, name in SYSTEMS.items() if mark in user_agent), "")
    if kind and system:
        return gettext("%(browser)s on %(system)s") % {"browser": kind, "system": system}
    return kind or system or gettext("An unknown browser")


@register.filter
def action_words(action: str) -> str:
    """What an entry of the audit trail says of a person."""
    return str(ACTIONS.get(action, action.replace("_", " ")))


@register.filter
def after(text: str, prefix: str) -> str:
    """The rest of the word that starts with `prefix`; empty where there is none."""
    return next((w.removeprefix(prefix) for w in (text or "").split() if w.startswith(prefix)), "")


@register.filter
def languages(codes: list[str]) -> str:
    """Languages by the names that the reader knows them by; the code where there is no name."""
    return format_list([language(code) for code in codes], locale=_reader())


@register.filter
def language(code: str) -> str:
    """A language by the name that the reader knows it by; its code where it has no name."""
    return str(_reader().languages.get(code, code))


def _reader() -> Locale:
    """What is known of the language in which the page is read."""
    return Locale.parse(to_locale(get_language() or settings.LANGUAGE_CODE))
