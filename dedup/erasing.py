"""What happens to the rows of detection and review when a person is erased."""

from dedup import flagging
from support.erasing import HERE, OURS, WITH_ROW, Calls, Emptied, Goes, Leaving, Parted, Rule, Stays


def _forget_texts(leaving: Leaving) -> None:
    flagging.forget(leaving.questions, asked_by=leaving.person, now=leaving.now)


WITH_FLAGS = Stays("taken out with what the flags know of the text")

RULES: dict[str, Rule] = {
    "dedup.Flag.dispute": Emptied("disputed_by"),
    "dedup.Flag.unsure": Emptied("unsure_by"),
    "dedup.Flag.older": Calls(_forget_texts),
    "dedup.Flag.newer": WITH_FLAGS,
    "dedup.Flag.older_hash": WITH_FLAGS,
    "dedup.Flag.newer_hash": WITH_FLAGS,
    "dedup.Flag.alignment": WITH_FLAGS,
    "dedup.Flag.claimed_by": Stays("ends by itself within minutes"),
    "dedup.Flag.unsure_by": HERE,
    "dedup.Flag.disputed_by": HERE,
    "dedup.Review.note": Emptied("by"),
    "dedup.Review.by": HERE,
    "dedup.Review.canonical": Stays("says by id which question was to stay"),
    "dedup.Review.release": OURS,
    "dedup.Review.older_hash": WITH_FLAGS,
    "dedup.Review.newer_hash": WITH_FLAGS,
    "dedup.BlindItem.by": HERE,
    "dedup.SavedView.owner": Goes(),
    "dedup.SavedView": WITH_ROW,
    "dedup.Draft.reader": Goes(),
    "dedup.Draft": WITH_ROW,
    "dedup.Deflection.asker": Parted(),
    "dedup.Deflection.solved_question": OURS,
    "dedup.Deflection.asked_question": Stays("says by id what was asked in the end"),
    "dedup.Embedding.question": Goes(),
    "dedup.Embedding": WITH_ROW,
    "dedup.Score.older": Goes(),
    "dedup.Score.newer": Goes(),
    "dedup.Score": WITH_ROW,
    "dedup.Release": OURS,
    "dedup.Job.by": HERE,
    "dedup.Job": OURS,
    "dedup.Worker": OURS,
    "dedup.Baseline": OURS,
    "dedup.Alert": OURS,
    "dedup.Delivery": OURS,
}
