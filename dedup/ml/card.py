"""The model card of a release, out of its manifest."""

from typing import Any


def model_card(raw: dict[str, Any]) -> str:
    """Markdown: what it is, figures, thresholds, limits, licences."""
    held, usage = raw["metrics"]["held"], raw["metrics"]["english_se_titles"]
    forum = raw["metrics"]["semeval_dev"]
    lines = [
        f"# {raw['name']}",
        "",
        f"A bi-encoder (the base, {raw['base']}, unchanged but for fp16) and a cross-encoder that",
        "reads both texts, sorted by code point. The probability is a logistic function of the",
        "cross-encoder's logit and the cosine. English only.",
        "",
        "| set | this release | cosine alone |",
        "|---|---|---|",
        f"| Quora dev and our phrasings, held out, AP | {held['ap']:.3f} "
        f"| {held['ap_cosine']:.3f} |",
        f"| English usage titles, never trained on, AP | {usage['ap']:.3f} "
        f"| {usage['ap_cosine']:.3f} |",
        f"| SemEval 3-B dev, MAP | {forum['map']:.3f} | {forum['map_cosine']:.3f} |",
        "",
        f"First row: accuracy {held['accuracy']:.3f}, F1 {held['f1']:.3f}, expected calibration",
        f"error {held['calibration_error']:.3f} on {held['rows']} rows.",
        "",
        "| threshold | probability | precision, recall on balanced rows | precision at prior |",
        "|---|---|---|---|",
    ]
    for name, t in raw["thresholds"].items():
        even, rare = t["balanced"], t["at_prior"]
        lines.append(
            f"| {name} | {t['probability']:.3f} | {even['precision']:.3f} "
            f"({even['low']:.3f} to {even['high']:.3f}), {even['recall']:.3f} "
            f"| {rare['precision']:.3f} where {rare['prior']:.0%} are duplicates |"
        )
    lines += ["", "Near misses made by rule that reach the flag threshold:", ""]
    for kind, m in raw["metrics"]["near_misses_flagged"].items():
        lines.append(f"- {kind}: {m['flagged']:.0%} of {m['rows']}")
    lines += [
        "",
        "## Limits",
        "",
        "A first release, trained for minutes. Near misses of rare kinds pass. Precision falls",
        "where duplicates are rare: read the last column. The plain logit is not a probability.",
        "",
        "## Licences of the data",
        "",
        *[f"- {name}: {licence}" for name, licence in raw["licences"].items()],
    ]
    return "\n".join(lines) + "\n"
