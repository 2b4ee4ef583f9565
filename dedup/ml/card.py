"""The model card of a release, out of its manifest."""

from collections.abc import Iterable, Iterator
from typing import Any

COLUMNS = ("rows", "metric", "release", "cosine alone", "lead (95 %)", "words alone")


def model_card(raw: dict[str, Any]) -> str:
    """Markdown: what it is, figures, thresholds, limits, licences, what was tried."""
    parts = (_head, _figures, _near_misses, _calibration, _thresholds, _limits, _history)
    return "\n".join(line for part in parts for line in part(raw)) + "\n"


def adopted_card(raw: dict[str, Any]) -> str:
    """Markdown for a release whose cross-encoder others trained: what is known of it here."""
    of_portal = (_adopted, _fitted, _on_held_labels, _promises)
    parts = of_portal if "portal" in raw["metrics"] else (_adopted, _thresholds)
    return "\n".join(line for part in parts for line in part(raw)) + "\n"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    columns = list(columns)
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _head(raw: dict[str, Any]) -> Iterator[str]:
    given = raw["calibration"]["coefficients"]
    yield from (
        f"# {raw['name']}",
        "",
        f"A bi-encoder (the base, {raw['base']}, unchanged but for fp16) and a cross-encoder that",
        "reads both texts, sorted by code point. The probability is a logistic function of the",
        "cosine and of the cross-encoder's logit, which counts only where texts look alike: not at",
        f"all below a cosine of {given.get('low', -1):.2f}, fully from {given.get('high', -1):.2f}",
        "on. It is fitted on pairs as a shortlist delivers them:",
        f"{given['prior']:.1%} of those are duplicates. English only.",
        "",
    )


def _figures(raw: dict[str, Any]) -> Iterator[str]:
    metrics = raw["metrics"]
    named = {
        "held trades, shortlisted": metrics["shortlists"],
        "held topics, shortlisted": metrics["topics"],
        **metrics["sets"],
        "links of five small sites": metrics["links"],
    }
    yield from (
        "## Ranking",
        "",
        "By the release's probability. Nothing was trained on these rows; the blend was chosen on",
        "Quora's development pairs among others. AP: average precision; MAP: mean over queries;",
        "MRR: mean reciprocal rank of the linked question among the 50 nearest.",
        "",
    )
    yield from table(("set", *COLUMNS), ((name, *_ranked(row)) for name, row in named.items()))
    yield from (
        "",
        "![Precision over recall on held trades](precision-recall.svg)",
        "",
        "Titles, at even odds, by a second calibration on a random half of Quora's development",
        "pairs, of which the rest are counted here; by length, a third of the rows each; the",
        "largest difference between the two orders of a pair:",
        "",
    )
    columns = ("accuracy at 0.5", "best", "F1 at 0.5", "best", "short", "middle", "long", "orders")
    titles = {name: row for name, row in metrics["sets"].items() if "accuracy" in row}
    yield from table(("set", *columns), ((name, *_titles(row)) for name, row in titles.items()))
    yield from (
        "",
        "Near neighbours of the same intent against those of others. The same intent is not the",
        "same question, so this should not be high:",
        "",
    )
    intents = metrics["intents"].items()
    yield from table(("set", *COLUMNS), ((name, *_ranked(row)) for name, row in intents))


def _ranked(row: dict[str, Any]) -> Iterator[str]:
    yield from (str(row["rows"]), row["metric"], f"{row['release']:.4f}", f"{row['cosine']:.4f}")
    lead = row.get("lead_interval")
    yield f"{lead[0]:+.4f} to {lead[1]:+.4f}" if lead else ""
    yield f"{row['tfidf']:.4f}"


def _titles(row: dict[str, Any]) -> Iterator[str]:
    for name in ("accuracy", "best_accuracy", "f1", "best_f1"):
        yield f"{row[name]:.3f}"
    yield from (f"{row['by_length'][third]:.3f}" for third in ("short", "middle", "long"))
    yield f"{row['asymmetry']:.4f}"


def _near_misses(raw: dict[str, Any]) -> Iterator[str]:
    metrics = raw["metrics"]
    yield from ("", "## Near misses at or above the flag threshold", "")
    kinds = {
        "written, held trades": metrics["shortlists"]["near_misses_flagged"],
        "written, held topics": metrics["topics"]["near_misses_flagged"],
        "made by rule of Quora's titles": metrics["rule_made_near_misses"],
    }
    yield from table(
        ("set", "differs in", "rows", "flagged"),
        (
            (name, kind, str(found["rows"]), f"{found['flagged']:.0%}")
            for name, by_kind in kinds.items()
            for kind, found in by_kind.items()
        ),
    )


def _calibration(raw: dict[str, Any]) -> Iterator[str]:
    metrics = raw["metrics"]
    errors = {
        "held trades, shortlisted": metrics["shortlists"],
        "held topics, shortlisted": metrics["topics"],
        **{f"{n}, even odds": row for n, row in metrics["sets"].items() if "accuracy" in row},
    }
    yield from (
        "",
        "## Calibration",
        "",
        f"Fitted on {raw['calibration']['on']} ({raw['calibration']['rows']} pairs). Expected",
        "calibration error, 15 bins of equal width:",
        "",
    )
    rows = ((name, f"{row['calibration_error']:.4f}") for name, row in errors.items())
    yield from table(("set", "error"), rows)
    yield from ("", "![Reliability on held trades](reliability.svg)")


def _adopted(raw: dict[str, Any]) -> Iterator[str]:
    calibration, found = raw["calibration"], raw["metrics"]["shortlists"]
    yield from (
        f"# {raw['name']}",
        "",
        f"The cross-encoder is {raw['base']}, trained by others: its own card says on what, and",
        f"under which licence. The bi-encoder is that of {raw['recipe']['bi_encoder_of']}.",
        "",
        f"Calibrated on {calibration['on']} ({calibration['rows']} pairs,",
        f"{calibration['coefficients']['prior']:.1%} of them duplicates). On shortlists of held",
        f"trades, written for this project: average precision {found['release']:.4f}, cosine alone",
        f"{found['cosine']:.4f}; expected calibration error {found['calibration_error']:.4f}.",
    )


def refitted_card(raw: dict[str, Any]) -> str:
    """Markdown for a release that learned from a portal's own verdicts."""
    parts = (_learned, _fitted, _on_held_labels, _promises, _limits_of_learned)
    return "\n".join(line for part in parts for line in part(raw)) + "\n"


def _learned(raw: dict[str, Any]) -> Iterator[str]:
    parent, labels, trained = raw["parent"], raw["labels"], raw["recipe"]
    went_on = trained["start"] == "current"
    start = f"went on from {parent['name']}" if went_on else "began afresh from the base"
    yield from (
        f"# {raw['name']}",
        "",
        f"A release that this portal made of its own verdicts. Its cross-encoder {start} and",
        f"learned from {labels['train']} pairs that people judged; the bi-encoder is that of",
        f"{parent['name']}. Steps: {trained['steps']}, {trained['seconds'] / 60:.0f} minutes, seed",
        f"{trained['seed']}. Of the way that it went in them {trained['way']:.0%} was kept.",
    )


def _fitted(raw: dict[str, Any]) -> Iterator[str]:
    fit, given = raw["calibration"], raw["calibration"]["coefficients"]
    yield from (
        "",
        "## Calibration",
        "",
        f"Fitted on {fit['rows']} verdicts on pairs that it did not learn from. Each stands for as",
        "many pairs as the chance says with which it was asked about:",
        f"{fit['stands_for']:.0f} in all, {given['prior']:.2%} of them duplicates.",
    )
    if fit["is_of_flagged_alone"]:
        yield from (
            "",
            "All of these pairs had been flagged: nobody was asked about any below the threshold.",
            "Probabilities are known for pairs like those alone, and no precision can be promised.",
        )


def _on_held_labels(raw: dict[str, Any]) -> Iterator[str]:
    portal, others = raw["metrics"]["portal"], raw["metrics"]["shortlists"]
    yield from (
        "",
        "## Ranking",
        "",
        "Average precision. Held verdicts had part in nothing before; the trades are questions",
        "that were written for this project, and show what was forgotten.",
        "",
    )
    columns = ("set", "rows", "duplicates", "this release", "the one before", "cosine alone")
    sets = {"held verdicts": portal, "held trades": others}
    yield from table(
        columns,
        (
            (name, str(row["rows"]), str(row["duplicates"]), *_three(row))
            for name, row in sets.items()
        ),
    )
    if portal["rows"]:
        yield from (
            "",
            f"Log loss on held verdicts: {portal['log_loss']:.4f}, before"
            f" {portal['log_loss_before']:.4f}.",
            "",
            "![Precision over recall on held verdicts](precision-recall.svg)",
            "![Reliability on held verdicts](reliability.svg)",
        )


def _three(row: dict[str, Any]) -> Iterator[str]:
    found = (row["release"], row.get("before"), row["cosine"])
    yield from ("" if value is None else f"{value:.3f}" for value in found)


def _promises(raw: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Thresholds",
        "",
        f"Chosen on {raw['calibration']['thresholds_on']}. Promised: with 95 % confidence the",
        "precision of what is at or above it is at least as wanted. As before: verdicts were too",
        "few to promise that; it is the probability at which precision is expected to be what it",
        "was at the former threshold.",
        "",
    )
    measured = ("precision (95 %), recall", "on held verdicts")
    yield from table(
        ("threshold", "probability", "wanted", "how", *measured),
        ((name, *_promise(at)) for name, at in raw["thresholds"].items()),
    )


def _promise(at: dict[str, Any]) -> Iterator[str]:
    yield from (f"{at['probability']:.3f}", f"{at['chosen']['wanted_precision']:.2f}", at["basis"])
    yield from (_measured(at["chosen"]), _measured(at["held"]))


def _limits_of_learned(raw: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Limits",
        "",
        "What agents overlook, it learns to overlook. It speaks of this portal's questions as",
        "they were asked until now; where people begin to ask of other things, its probabilities",
        f"drift. It was evaluated in: {', '.join(raw['languages'])}.",
        "",
        "## Licences",
        "",
    )
    yield from (f"- {name}: {licence}" for name, licence in raw["licences"].items())


def _thresholds(raw: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Thresholds",
        "",
        f"Chosen on {raw['calibration'].get('thresholds_on', 'the same pairs')} so that the lower",
        "end of the exact interval reaches the wanted precision; then measured on trades that",
        "nothing was chosen on, where two of five questions are near misses.",
        "",
    )
    columns = ("threshold", "probability", "wanted", "precision (95 %), recall", "on held trades")
    yield from table(
        columns,
        (
            (
                name,
                f"{at['probability']:.3f}",
                f"{at['chosen']['wanted_precision']:.2f}",
                _measured(at["chosen"]),
                _measured(at["held"]),
            )
            for name, at in raw["thresholds"].items()
        ),
    )


def _measured(at: dict[str, float]) -> str:
    return f"{at['precision']:.2f} ({at['low']:.2f} to {at['high']:.2f}), {at['recall']:.2f}"


def _limits(raw: dict[str, Any]) -> Iterator[str]:
    yield from (
        "",
        "## Limits",
        "",
        "A small network, trained for some hours on processor cores. A near miss that differs in",
        "one word may pass: people decide, the machine only flags. Where duplicates are rarer than",
        "stated above, precision is lower. The plain logit is a correction to the cosine, not a",
        "probability.",
        "",
        "## Licences of the data",
        "",
    )
    yield from (f"- {name}: {licence}" for name, licence in raw["licences"].items())


def _history(raw: dict[str, Any]) -> Iterator[str]:
    tried = raw["recipe"].get("tried", [])
    if tried:
        yield from ("", "## What was tried on the way", "", *(f"- {line}" for line in tried))
