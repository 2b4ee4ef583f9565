"""What people decided before on pairs like one: the empirical line on a card."""

from dataclasses import dataclass

from django.db.models import F

from dedup.models import Flag, Review

FEWEST = 10  # decisions; of fewer nothing is said


@dataclass(frozen=True)
class LikeIt:
    """What people decided on the newest pairs of about the same probability."""

    confirmed: int
    decided: int


def like_it(flag: Flag, count: int = 50) -> LikeIt | None:
    """The last `count` decisions on pairs whose odds are about the same; None before ten of
    them, or where the release does not know the languages."""
    if flag.unevaluated_languages:
        return None
    low, high = _about(flag.probability)
    near = Review.objects.standing().filter(
        verdict__in=Review.DECISIONS,
        flag__status=F("verdict"),
        release=flag.release.name,
        probability__range=(low, high),
    )
    verdicts = list(near.order_by("-pk").values_list("verdict", flat=True)[:count])
    if len(verdicts) < FEWEST:
        return None
    return LikeIt(verdicts.count(Review.Verdict.CONFIRMED), len(verdicts))


def _about(probability: float) -> tuple[float, float]:
    """Probabilities whose odds are at most half as much higher or lower."""
    odds = probability / max(1 - probability, 1e-9)
    return tuple(o / (1 + o) for o in (odds / 1.5, odds * 1.5))  # type: ignore[return-value]
