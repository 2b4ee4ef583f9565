"""Two questions for a person's eyes: what only one of them says, which words mean each other."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

from django.utils.html import escape, format_html
from django.utils.safestring import SafeString

from dedup.differences import Piece, Reading
from dedup.ml.pairs import AlignedWords
from support.models import Question
from support.templatetags.texts import markdown

TAG = re.compile(r"(<[^>]*>)")
CODE = re.compile(r"<(/?)(?:code|pre)\b")

Part = SafeString | Piece  # a tag, or a stretch of text


@dataclass(frozen=True)
class Marked:
    """A question's title and body as HTML, and how many of its words have a partner."""

    title: SafeString
    body: SafeString
    partners: int


def side_by_side(
    newer: Question, older: Question, alignment: Sequence[Sequence[Any]] | None = None
) -> tuple[Marked, Marked]:
    """Both questions: own words marked, and words that mean each other under the same number.

    `alignment` is what a flag keeps; the numbers count the pairs that both sides show.
    """
    rows = [AlignedWords(*row) for row in alignment or []]
    ours = {(row.newer, row.newer_place): pair for pair, row in enumerate(rows)}
    theirs = {(row.older, row.older_place): pair for pair, row in enumerate(rows)}
    one, other = _read(newer, older, ours), _read(older, newer, theirs)
    shown = _pairs(one) & _pairs(other)  # the other question may show a word in code only
    numbers = {pair: number for number, pair in enumerate(sorted(shown), start=1)}
    return _written(one, numbers), _written(other, numbers)


def _read(
    question: Question, opposite: Question, pairs: Mapping[tuple[str, int], int]
) -> tuple[list[Part], list[Part]]:
    """Title and body in parts."""
    reading = Reading(f"{opposite.title}\n{opposite.body}", pairs)
    title: list[Part] = [*reading.pieces(question.title)]
    return title, list(_read_html(markdown(question.body), reading))


def _read_html(html: str, reading: Reading) -> Iterator[Part]:
    """Tags as they are, text in pieces; a word in code is counted, but has no partner."""
    depth = 0
    for part in TAG.split(html):
        if part.startswith("<"):
            if code := CODE.match(part):
                depth += -1 if code.group(1) else 1
            yield SafeString(part)
        else:
            for piece in reading.pieces(unescape(part)):
                yield replace(piece, pair=None) if depth else piece


def _pairs(read: tuple[list[Part], list[Part]]) -> set[int]:
    pieces = (part for parts in read for part in parts if isinstance(part, Piece))
    return {piece.pair for piece in pieces if piece.pair is not None}


def _written(read: tuple[list[Part], list[Part]], numbers: Mapping[int, int]) -> Marked:
    title, body = (SafeString("".join(_shown(part, numbers) for part in parts)) for parts in read)
    return Marked(title, body, len(numbers))


def _shown(part: Part, numbers: Mapping[int, int]) -> str:
    if not isinstance(part, Piece):
        return part
    number = None if part.pair is None else numbers.get(part.pair)
    if number is None:
        return (
            format_html('<mark class="own">{}</mark>', part.text)
            if part.is_other
            else escape(part.text)
        )
    if part.is_other:
        return format_html('<mark class="own" data-word="{}">{}</mark>', number, part.text)
    return format_html('<span data-word="{}">{}</span>', number, part.text)
