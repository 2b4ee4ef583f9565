"""What the audit trail says of the machine, in sentences that need no knowledge of its words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from dedup import gates
from dedup.models import Job, ThresholdChange
from support.templatetags.texts import in_percent

register = template.Library()

SENTENCES = {
    "release_activated": _("Release %(release)s was put into service."),
    "release_kept_out": _("Release %(release)s was not put into service. Missing: %(gates)s."),
    "gates_overruled": _(
        "Release %(release)s was let into service although this was missing: %(gates)s."
    ),
    "release_shadowed": _("Release %(release)s began to judge in the shadow, without being heard."),
    "release_shadow_ended": _("Release %(release)s judges in the shadow no more."),
    "threshold_moved": _(
        "The threshold “%(which)s” of release %(release)s was moved from %(before)s to %(after)s."
    ),
    "threshold_moved_back": _(
        "The threshold “%(which)s” of release %(release)s was moved back from %(before)s to"
        " %(after)s."
    ),
    "job_started": _("Long work was started: %(kind)s."),
    "job_stopped": _("Long work was stopped: %(kind)s."),
    "alert_redelivered": _("A message about an alert was sent once more."),
}  # fmt: skip


@register.filter
def change_words(change: Mapping[str, Any]) -> SafeString:
    """A change as `weekly.changes` has it, for a page: names keep their direction."""
    said = _said(change, lambda name: format_html("<bdi>{}</bdi>", name))
    return SafeString(" ".join(said))


@register.filter
def change_text(change: Mapping[str, Any]) -> str:
    """The same for a text without marks."""
    return " ".join(_said(change, str))


def _said(change: Mapping[str, Any], named: Callable[[str], str]) -> list[str]:
    details: Mapping[str, Any] = change["details"]
    sentence = SENTENCES.get(change["action"])
    if sentence is None:
        return [str(change["action"]).replace("_", " ")]
    known = {
        "release": named(str(details.get("release", ""))),
        "gates": _titles(details.get("gates", ())),
        "which": _label(ThresholdChange.Which, details.get("which")),
        "kind": _label(Job.Kind, details.get("kind")),
        **{end: in_percent(details[end]) for end in ("before", "after") if end in details},
    }
    first = conditional_escape(sentence) % {key: conditional_escape(known[key]) for key in known}
    return [first, *_effects(details)]


def _titles(names: Sequence[str]) -> str:
    quoted = (gettext("“%(title)s”") % {"title": gates.TITLES.get(name, name)} for name in names)
    return gettext(", ").join(quoted)


def _label(choices: Any, value: Any) -> str:
    return str(dict(choices.choices).get(value, value))


def _effects(details: Mapping[str, Any]) -> list[str]:
    """What a moved threshold did at once."""
    withdrawn, put_back = details.get("withdrawn", 0), details.get("put_back", 0)
    left = ngettext(
        "%(count)s open pair left the queue.", "%(count)s open pairs left the queue.", withdrawn
    )
    again = ngettext(
        "%(count)s question is checked again.", "%(count)s questions are checked again.", put_back
    )
    return [said % {"count": n} for n, said in ((withdrawn, left), (put_back, again)) if n]
