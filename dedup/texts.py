"""What the networks read of a question."""

from dataclasses import dataclass
from datetime import datetime

from dedup.ml.text import model_input, text_hash
from support.models import Question

SHORT, LONG = 100, 400  # characters: a text below is short, one above is long


@dataclass(frozen=True)
class Text:
    """A question's model input, its hash, and what decides which of two is the older."""

    question_id: int
    order: tuple[datetime, int]
    input: str
    hash: str


def text_of(question: Question) -> Text:
    """Return the text of a question as it now stands."""
    read = model_input(question.title, question.body)
    return Text(question.pk, question.order, read, text_hash(read))
