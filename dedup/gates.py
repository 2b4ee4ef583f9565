"""What a release must show before it goes into service. Judges values; reads no row.

A gate is open, shut, or nobody knows yet, which shuts it too. Whoever overrules one says why; the
files and the proof of the golden pairs cannot be overruled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from dedup.ml.evaluation import psi
from support.templatetags.texts import language

OPEN, SHUT, UNKNOWN = "open", "shut", "unknown"
ALPHA = 0.05  # how probable a false alarm over all segments together may be
SLOWEST = 1.5  # times the active release's milliseconds for a check
FEWEST_SHADOWED = 500  # pairs judged in the shadow
# Population stability index of probabilities: above it a distribution "has shifted" by the rule of
# thumb of credit scoring (Siddiqi 2006, "Credit Risk Scorecards", chapter 6).
MOST_DRIFT = 0.25
FLAGS_LOW, FLAGS_HIGH = 0.5, 2.0  # times as many flags as the active release's
TITLES = {
    "files": _("Its files are those that were added"),
    "golden": _("Pairs with known scores come out right"),
    "labels": _("Enough pairs that people judged"),
    "overall": _("On all of them it is not worse than the release in service"),
    "segments": _("In no segment is it worse"),
    "latency": _("It is not much slower"),
    "drift": _("On live questions it says much the same"),
}
WORSE_IF_LESS = ("average_precision", "recall_at_wanted")
WORSE_IF_MORE = ("calibration_error",)

NO_NAMES: Mapping[str, str] = {}
# Segments, by the kind of what tells them apart.
KINDS = {
    "product": _("Product"),
    "language": _("Language"),
    "length": _("Length of the text"),
    "account": _("Age of the account"),
    "asker": _("Who asked"),
}
VALUES = {
    "length": {
        "short": _("Short"), "middle": _("Middle"),
        "long": _("Long"),
    },
    "account": {
        "new": _("Younger than 30 days"), "old": _("30 days or older"),
    },
    "asker": {
        "guest": _("Guests"), "known": _("People with an account"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Gate:
    """One thing that is asked of a release, and what was found."""

    name: str  # for programs
    title: str | Promise
    state: str  # OPEN, SHUT or UNKNOWN
    found: str  # figures, names and what to do, in words
    may_be_overruled: bool = True

    @property
    def is_open(self) -> bool:
        return self.state == OPEN


@dataclass(frozen=True)
class Shadowed:
    """Probabilities of the same pairs by both releases, and the thresholds of both."""

    active: np.ndarray
    shadow: np.ndarray
    active_threshold: float
    shadow_threshold: float


@dataclass(frozen=True)
class Shown:
    """All that is known of a release. `report` is the newest one against the active release (see
    dedup.ml.reporting); None where there is none."""

    refused: str  # why its files are not those that were added; "" where they are
    is_proved: bool  # its golden pairs came out right, here
    report: Mapping[str, Any] | None
    shadowed: Shadowed | None


def judge(shown: Shown) -> list[Gate]:
    """Every gate, in the order in which a person would look at them."""
    return [
        _files(shown), _golden(shown), _labels(shown), _overall(shown), _segments(shown),
        _latency(shown), _drift(shown),
    ]  # fmt: skip


def _files(shown: Shown) -> Gate:
    title = TITLES["files"]
    found = shown.refused or str(_("Every hash is right."))
    return Gate("files", title, SHUT if shown.refused else OPEN, found, may_be_overruled=False)


def _golden(shown: Shown) -> Gate:
    title = TITLES["golden"]
    if shown.is_proved:
        return Gate("golden", title, OPEN, str(_("Proved when it was evaluated.")), False)
    return Gate("golden", title, UNKNOWN, str(_("Evaluate it: that opens and proves it.")), False)


def _own(shown: Shown) -> Mapping[str, Any] | None:
    return shown.report.get("own") if shown.report else None


def _labels(shown: Shown) -> Gate:
    title = TITLES["labels"]
    own = _own(shown)
    if own is None:
        return Gate("labels", title, UNKNOWN, _unmeasured())
    counts = gettext("%(pairs)s pairs, %(duplicates)s of them duplicates, in %(clusters)s groups.")
    said = gettext("Measured on:") + " " + counts % own
    if own["figures"]:
        return Gate("labels", title, OPEN, said)
    return Gate("labels", title, SHUT, f"{said} {gettext('Missing:')} {_missing(own)}.")


def _missing(own: Mapping[str, Any]) -> str:
    """Of what there are too few judged pairs, and how many more it takes."""
    fewest = own["fewest"]
    others = own["pairs"] - own["duplicates"]
    pairs, duplicates = fewest["pairs"] - own["pairs"], fewest["duplicates"] - own["duplicates"]
    none, groups = fewest["duplicates"] - others, fewest["clusters"] - own["clusters"]
    words = [
        (pairs, ngettext("%(count)s pair", "%(count)s pairs", pairs)),
        (duplicates, ngettext("%(count)s duplicate", "%(count)s duplicates", duplicates)),
        (none, ngettext("%(count)s pair that is none", "%(count)s pairs that are none", none)),
        (groups, ngettext("%(count)s group of questions", "%(count)s groups of questions", groups)),
    ]
    return gettext(", ").join(said % {"count": count} for count, said in words if count > 0)


def _unmeasured(own: Mapping[str, Any] | None = None) -> str:
    """What is to be done where there is no figure: measure, or judge more pairs first."""
    if own is None or own["figures"]:
        return gettext("Evaluate it beside the release in service.")
    return gettext("It was measured on too few pairs to tell: see above what is missing.")


def _overall(shown: Shown) -> Gate:
    title = TITLES["overall"]
    own = _own(shown)
    if own is None or not own.get("leads"):
        return Gate("overall", title, UNKNOWN, _unmeasured(own))
    worse = list(_worse(own["leads"], tests=1))
    said = "; ".join(worse or [_lead(name, own["leads"]) for name in WORSE_IF_LESS])
    return Gate("overall", title, SHUT if worse else OPEN, said)


def _segments(shown: Shown) -> Gate:
    """By average precision; as many segments as are compared, so much wider is each interval
    (Bonferroni), so that one of them all is called worse by mere chance only now and then."""
    title = TITLES["segments"]
    own = _own(shown)
    if own is None or not own.get("leads"):
        return Gate("segments", title, UNKNOWN, _unmeasured(own))
    rows = [(kind, row) for kind, values in own["segments"].items() for row in values]
    known = [(kind, row) for kind, row in rows if "average_precision" in row["leads"]]
    worse = []
    for kind, row in known:
        lead = {"average_precision": row["leads"]["average_precision"]}
        name = f"{KINDS.get(kind, kind)} {value_words(kind, row['value'])}"
        worse += [f"{name}: {said}" for said in _worse(lead, tests=len(known))]
    counted = _("%(known)s segments compared; of %(few)s more there are too few pairs.")
    said = "; ".join(worse) or counted % {"known": len(known), "few": len(rows) - len(known)}
    return Gate("segments", title, SHUT if worse else OPEN, str(said))


def value_words(kind: str, value: str, products: Mapping[str, str] = NO_NAMES) -> str:
    """A segment's value as people call it."""
    if kind == "product":
        return products.get(value, value)
    if kind == "language":
        return language(value) if value else gettext("Not recognised")
    return str(VALUES.get(kind, {}).get(value, value))


def _worse(leads: Mapping[str, Mapping[str, float]], *, tests: int) -> Iterator[str]:
    """Figures that are worse beyond their interval, widened to that many tests."""
    for name, lead in leads.items():
        low, high = widened(lead, tests)
        if (name in WORSE_IF_LESS and high < 0) or (name in WORSE_IF_MORE and low > 0):
            yield _lead(name, leads)


def widened(lead: Mapping[str, float], tests: int) -> tuple[float, float]:
    """A 95 % interval as wide as so many tests at once want it, as if it were normal."""
    by = NormalDist().inv_cdf(1 - ALPHA / 2 / tests) / NormalDist().inv_cdf(1 - 0.05 / 2)
    value = lead["value"]
    return value - by * (value - lead["low"]), value + by * (lead["high"] - value)


NAMES = {
    "average_precision": _("ranking (average precision)"),
    "recall_at_wanted": _("duplicates found at the wanted precision (recall)"),
    "calibration_error": _("how far probabilities are off (calibration error)"),
}


def _lead(name: str, leads: Mapping[str, Mapping[str, float]]) -> str:
    if name not in leads:
        return str(_("%(figure)s: not known") % {"figure": NAMES[name]})
    lead = {key: points(leads[name][key]) for key in ("value", "low", "high")}
    said = gettext("%(figure)s %(value)s points (%(low)s to %(high)s)")
    return said % {"figure": NAMES[name], **lead}


def points(difference: float) -> str:
    """A difference of shares in hundredths, with its sign."""
    hundredths = round(100 * difference, 1)
    sign = "+" if hundredths > 0 else "−" if hundredths < 0 else "±"
    return f"{sign}{number_format(abs(hundredths), 1)}"


def _latency(shown: Shown) -> Gate:
    title = TITLES["latency"]
    report = shown.report or {}
    if not report.get("speed") or not report.get("speed_against"):
        return Gate("latency", title, UNKNOWN, _unmeasured())
    own, other = (report[k]["milliseconds_median"] for k in ("speed", "speed_against"))
    said = gettext("%(own)s ms a check, the release in service %(other)s ms, on the same machine.")
    said = said % {"own": round(own), "other": round(other)}
    return Gate("latency", title, OPEN if own <= SLOWEST * other else SHUT, said)


def _drift(shown: Shown) -> Gate:
    title = TITLES["drift"]
    seen = shown.shadowed
    count = len(seen.shadow) if seen else 0
    if seen is None or count < FEWEST_SHADOWED:
        said = gettext("%(count)s of %(needed)s pairs judged in the shadow: let it judge there.")
        said = said % {"count": count, "needed": FEWEST_SHADOWED}
        return Gate("drift", title, UNKNOWN, said)
    index = stability_index(seen.active, seen.shadow)
    before = int((seen.active >= seen.active_threshold).sum())
    after = int((seen.shadow >= seen.shadow_threshold).sum())
    ratio = (after + 1) / (before + 1)
    is_open = index < MOST_DRIFT and FLAGS_LOW <= ratio <= FLAGS_HIGH
    said = gettext(
        "Of %(count)s pairs it would flag %(after)s, the other %(before)s. How far its scores lie"
        " from the other's (stability index, PSI): %(index)s, where less than %(most)s is asked."
    )
    said = said % {
        "count": count, "after": after, "before": before, "index": number_format(index, 2),
        "most": number_format(MOST_DRIFT, 2),
    }  # fmt: skip
    return Gate("drift", title, OPEN if is_open else SHUT, said)


def stability_index(before: np.ndarray, after: np.ndarray, bins: int = 10) -> float:
    """Population stability index over tenths of `before`; 0 where both are alike."""
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))
    return psi(*(_counted(values, edges) for values in (before, after)))


def _counted(values: np.ndarray, edges: np.ndarray) -> list[int]:
    parts = np.searchsorted(edges, values, side="right")
    return [int(count) for count in np.bincount(parts, minlength=len(edges) + 1)]


def shut(gates: Sequence[Gate]) -> list[Gate]:
    """Those that keep a release out."""
    return [gate for gate in gates if not gate.is_open]
