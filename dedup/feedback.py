"""Reviews -> labelled pairs: what people said of flags whose texts are still what they read."""

from dedup.ml.pairs import Pair
from dedup.models import Flag, Review
from dedup.texts import text_of


def labelled_pairs() -> list[tuple[Pair, bool]]:
    """Return each reviewed pair once, by its last standing verdict, oldest first.

    A pair whose texts were changed since is left out: what was said of it was said of others.
    """
    standing = (
        Review.objects.standing()
        .filter(verdict__in=Review.DECISIONS)
        .order_by("flag", "-reviewed_at", "-pk")
        .distinct("flag")
        .select_related("flag__older", "flag__newer")
    )
    found = []
    for review in sorted(standing, key=lambda review: review.pk):
        flag: Flag = review.flag
        older, newer = text_of(flag.older), text_of(flag.newer)
        if (older.hash, newer.hash) == (review.older_hash, review.newer_hash):
            pair = Pair(older.input, newer.input)
            found.append((pair, review.verdict == Review.Verdict.CONFIRMED))
    return found
