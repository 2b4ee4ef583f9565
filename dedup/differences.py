"""What two texts that look alike differ in: words, and what often makes two questions of one.

Pure: text in, findings out. A warning is for a person's eyes; nothing is decided by it.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from dedup.ml.words import SHORT, WORD, is_plain

VERSION = re.compile(r"(?<![\w.])v?\d+(?:\.\d+)+(?!\w)", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?![\w.]*\d)(?!\w)")
NEGATION = re.compile(r"\b(?:not|no|never|none|nothing|cannot|without|unable|\w+n['’]t)\b", re.I)
NAME = re.compile(r"\b(?:[A-Z][a-z]*[A-Z]\w*|[A-Z]{2,}\w*|[A-Z]\w+)\b")
OPENING = "\"'“(*#>-"  # may stand before the first word of a sentence
NEAR = 200  # characters that are looked back at
CALENDAR = {  # in capitals, and nobody's name
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
    "Saturday", "Sunday",
}  # fmt: skip

Reader = Callable[[str], set[str]]


@dataclass(frozen=True)
class Piece:
    """A stretch of a text; whether it is a word that the other text does not have in any form;
    and which pair of words that mean each other it belongs to."""

    text: str
    is_other: bool = False
    pair: int | None = None


class Reading:
    """Reads a text beside another, one stretch after the next.

    `pairs` says which pair of words that mean each other a word belongs to, by the word and by how
    often it stood before.
    """

    def __init__(self, opposite: str, pairs: Mapping[tuple[str, int], int]) -> None:
        self.known = {_stem(word) for word in WORD.findall(opposite)}
        self.pairs = pairs
        self.seen: Counter[str] = Counter()

    def pieces(self, text: str) -> list[Piece]:
        """The text in order, cut at words that the opposite lacks and at words with a partner."""
        found: list[Piece] = []
        at = 0
        for match in WORD.finditer(text):
            word = match.group()
            pair = self._pair(word)
            is_other = not is_plain(word) and _stem(word) not in self.known
            if not is_other and pair is None:
                continue
            if match.start() > at:
                found.append(Piece(text[at : match.start()]))
            found.append(Piece(word, is_other, pair))
            at = match.end()
        if at < len(text):
            found.append(Piece(text[at:]))
        return found

    def _pair(self, word: str) -> int | None:
        place = self.seen[word]
        self.seen[word] += 1
        return self.pairs.get((word, place))


@dataclass(frozen=True)
class Difference:
    """A kind of thing that one text says and the other does not: each side's own, sorted."""

    kind: str  # "number", "version", "name" or "negation"
    newer: list[str]
    older: list[str]


def differences(
    newer: str, older: str, *, products: Collection[str] = (), common: Collection[str] = ()
) -> list[Difference]:
    """Numbers, versions, names and negations in which the two differ; nothing where they agree.

    `products` are names to look for whatever their case, `common` those that both are about,
    whether they say it or not. A name counts where one of the two has it; a negation only where
    exactly one of the two texts is negated.
    """
    readers: dict[str, Reader] = {
        "version": _versions,
        "number": _numbers,
        "name": lambda text: _names(text, products) - CALENDAR - set(common),
    }
    found = []
    for kind, read in readers.items():
        one, other = read(newer), read(older)
        own, foreign = _without(one, older), _without(other, newer)
        if kind == "name":
            if own or foreign:
                found.append(Difference(kind, sorted(own), sorted(foreign)))
        elif one != other and (one - other or other - one):
            found.append(Difference(kind, sorted(one - other), sorted(other - one)))
    one, other = _negations(newer), _negations(older)
    if bool(one) != bool(other):
        found.append(Difference("negation", sorted(one), sorted(other)))
    return found


def _versions(text: str) -> set[str]:
    return {match.lower().removeprefix("v") for match in VERSION.findall(text)}


def _numbers(text: str) -> set[str]:
    return {
        number.replace(",", "").rstrip(",") for number in NUMBER.findall(VERSION.sub(" ", text))
    }


def _names(text: str, products: Collection[str]) -> set[str]:
    """Words in capitals inside of a sentence, and products' names."""
    found = {
        match.group()
        for match in NAME.finditer(text)
        if match.group() != "I" and not _begins_sentence(text, match.start())
    }
    lowered = text.lower()
    known = {name for name in products if re.search(rf"\b{re.escape(name.lower())}\b", lowered)}
    return found | known


def _begins_sentence(text: str, at: int) -> bool:
    """Whether what stands here is the first word of a sentence, a line or the text."""
    before = text[max(0, at - NEAR) : at]
    outer = before.rstrip()
    inner = outer.rstrip(OPENING)
    end = inner.rstrip()
    gaps = before[len(outer) :] + inner[len(end) :]
    return "\n" in gaps or not end or end[-1] in ".!?:"


def _without(names: set[str], text: str) -> set[str]:
    """Those that a text does not have, whatever their case."""
    words = {_stem(word) for word in WORD.findall(text)}
    lowered = text.lower()
    return {name for name in names if _stem(name) not in words and name.lower() not in lowered}


def _negations(text: str) -> set[str]:
    return {match.lower() for match in NEGATION.findall(text)}


def _stem(word: str) -> str:
    """A word without case and the commonest English endings: enough to see it in another form."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= SHORT:
            word = word.removesuffix(ending)
            return word[:-1] if word[-1] == word[-2] else word  # resetting, reset
    return word
