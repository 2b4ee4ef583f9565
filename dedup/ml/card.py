"""The model card of a release, out of its manifest."""

from collections.abc import Iterator
from typing import Any


def model_card(raw: dict[str, Any]) -> str:
    """Markdown: what it is, figures, thresholds, limits, licences."""
    return "\n".join([*_head(raw), *_figures(raw), *_thresholds(raw), *_limits(raw)]) + "\n"


def _head(raw: dict[str, Any]) -> Iterator[str]:
    prior = raw["calibration"]["coefficients"]["prior"]
    yield from (
        f"# {raw['name']}",
        "",
        f"A bi-encoder (the base, {raw['base']}, unchanged but for fp16) and a cross-encoder that",
        "reads both texts, sorted by code point. The probability is a logistic function of the",
        "cross-encoder's logit and the cosine, fitted on pairs as a shortlist delivers them:",
        f"{prior:.1%} of those are duplicates. English only.",
        "",
    )


def _figures(raw: dict[str, Any]) -> Iterator[str]:
    lists = raw["metrics"]["shortlists"]
    low, high = lists["ap_interval"]
    yield from (
        "## Figures",
        "",
        f"Support questions of lines of business that nothing was trained on, {lists['rows']}",
        f"shortlisted pairs with {lists['duplicates']} duplicates: average precision",
        f"{lists['ap']:.3f} ({low:.3f} to {high:.3f}), cosine alone {lists['ap_cosine']:.3f};",
        f"expected calibration error {lists['calibration_error']:.4f}.",
        "",
        "| set | rows | metric | this release | cosine alone | accuracy at 0.5 | best |",
        "|---|---|---|---|---|---|---|",
    )
    for name, found in raw["metrics"]["sets"].items():
        accuracies = (
            f"{found[k]:.3f}" if k in found else "" for k in ("accuracy", "best_accuracy")
        )
        yield (
            f"| {name} | {found['rows']} | {found['metric']} | {found['release']:.4f} "
            f"| {found['cosine']:.4f} | {' | '.join(accuracies)} |"
        )
    yield from ("", "Near misses at or above the flag threshold, written ones by what differs:", "")
    for kind, found in lists["near_misses_flagged"].items():
        yield f"- {kind}: {found['flagged']:.0%} of {found['rows']}"
    yield from ("", "and made by rule out of Quora questions:", "")
    for kind, found in raw["metrics"]["rule_made_near_misses"].items():
        yield f"- {kind}: {found['flagged']:.0%} of {found['rows']}"


def _thresholds(raw: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Thresholds",
        "",
        "Chosen on shortlists of the demo's portal (300 questions, nothing was trained on them) so",
        "that the lower end of the exact interval reaches the wanted precision; then measured on",
        "trades that nothing was chosen on, where two of five questions are near misses.",
        "",
        "| threshold | probability | wanted | precision (95 % interval), recall | on held trades |",
        "|---|---|---|---|---|",
    )
    for name, at in raw["thresholds"].items():
        yield (
            f"| {name} | {at['probability']:.3f} | {at['chosen']['wanted_precision']:.2f} "
            f"| {_measured(at['chosen'])} | {_measured(at['held'])} |"
        )


def _measured(at: dict[str, float]) -> str:
    return f"{at['precision']:.2f} ({at['low']:.2f} to {at['high']:.2f}), {at['recall']:.2f}"


def _limits(raw: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Limits",
        "",
        "Trained for two hours on processor cores. A near miss that differs in one",
        "word may pass: people decide, the machine only flags. Where duplicates are rarer than",
        "stated above, precision is lower. The plain logit is a correction to the cosine, not a",
        "probability.",
        "",
        "## Licences of the data",
        "",
    )
    yield from (f"- {name}: {licence}" for name, licence in raw["licences"].items())
