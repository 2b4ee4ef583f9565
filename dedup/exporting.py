"""What an export has of the rows of review: what somebody said, never a score."""

from support.exporting import Rows, Without

RULES: dict[str, Rows | Without] = {
    "dedup.Review.by": Rows(
        "reviews",
        ("flag__older_id", "flag__newer_id", "verdict", "note", "reviewed_at", "undone_at"),
    ),
    "dedup.BlindItem.by": Rows(
        "pairs that you judged blindly",
        ("flag__older_id", "flag__newer_id", "verdict", "drawn_at", "decided_at"),
    ),
    "dedup.Flag.disputed_by": Rows(
        "questions of which you said that yours is different",
        ("older_id", "newer_id", "dispute", "disputed_at"),
    ),
    "dedup.Flag.unsure_by": Rows(
        "pairs for which you wanted a second opinion",
        ("older_id", "newer_id", "unsure", "unsure_at"),
    ),
    "dedup.Flag.claimed_by": Rows("pairs that you hold", ("id", "claimed_until")),
    "dedup.SavedView.owner": Rows("saved views of the queue", ("name", "query", "is_shared")),
    "dedup.Release.activated_by": Rows(
        "releases that you put into service", ("name", "activated_at")
    ),
    "dedup.Job.by": Rows("long work that you started", ("kind", "state", "put_at", "ended_at")),
    "dedup.ThresholdChange.by": Rows(
        "thresholds that you moved", ("release__name", "which", "before", "after", "reason", "at")
    ),
    "dedup.ThresholdChange.undone_by": Rows(
        "moves of thresholds that you took back", ("release__name", "which", "before", "undone_at")
    ),
    "dedup.Deflection.asker": Rows(
        "times that you were shown similar questions",
        ("begun_at", "shown", "opened_at", "solved_at", "solved_question_id", "asked_at",
         "asked_question_id"),
    ),
    "dedup.Draft.reader": Without("a text that is being typed is gone within a minute"),
}  # fmt: skip
