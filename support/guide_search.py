"""Search in the guides: few and short, so that an index in memory does.

BM25 over sections, where a word of the page's title or of a heading counts for several of the text
(Robertson and Zaragoza 2009: BM25F), and words are cut to their stems.
"""

import math
import re
import threading
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import snowballstemmer
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from support import guides
from support.guides import Guide, Section

WEIGHTS = {"page": 3.0, "heading": 3.0, "text": 1.0}
SATURATION, LENGTH = 1.2, 0.6  # BM25's k1 and b
COMMON = 0.3  # words that stand in a larger share of all sections tell nothing
SHORTEST = 3  # characters of a word that is looked for
OWN = 1.3  # what is written for the reader comes first of two that are nearly as good
FAINT = 0.15  # of the best score: what has less speaks of something else
EXCERPT = 240  # characters
STEMMERS = {"en": "english", "de": "german", "ar": "arabic"}
_WORD = re.compile(r"([^\W_]+)")
SILENT = frozenset(  # words of questions, that say nothing of what is asked
    _WORD.findall(
        "and are can could did does for from get has have how its not the was what when where "
        "which who why will with would you your "
        "auf aus bei das dem den der des die ein eine einen für hat ich ist kann man mein meine "
        "meinen mit nicht sich und von wann warum was welche wer wie wird wo zu zum zur über "
        "أين التي الذي إلى إلي أنا أو أي عن على في كيف لا لماذا ما ماذا متى من هذا هذه هل هو هي"
    )
)
_SENTENCE = re.compile(r"(?<=[.!?؟])\s+")


@dataclass(frozen=True)
class Hit:
    """The section of a guide that answers best, and where its words stand in it."""

    guide: Guide
    section: Section
    excerpt: SafeString

    @property
    def address(self) -> str:
        """Of the section; of the page where it is what stands below the title."""
        page = self.guide.get_absolute_url()
        return page if self.section.level == 1 else f"{page}#{self.section.anchor}"


@dataclass(frozen=True)
class _Row:
    guide: Guide
    section: Section
    counts: dict[str, float]  # how often each stem stands in it, weighed by where
    length: int


class _Index:
    """All sections that a reader of one language gets, and how rare each stem is in them."""

    def __init__(self, language: str) -> None:
        found = guides.library(language).values()
        self.rows = [_row(guide, section) for guide in found for section in guide.sections]
        self.usual = sum(row.length for row in self.rows) / len(self.rows)
        self.shares = {
            stem: number / len(self.rows)
            for stem, number in Counter(stem for row in self.rows for stem in row.counts).items()
        }

    def telling(self, text: str, language: str) -> frozenset[str]:
        """The stems of a text that only some sections have; all where none is."""
        words = frozenset(stems(text, language))
        return frozenset(w for w in words if self.shares.get(w, 0) <= COMMON) or words

    def score(self, row: _Row, words: frozenset[str]) -> float:
        """BM25, times how much of what was asked the section speaks of at all."""
        long = SATURATION * (1 - LENGTH + LENGTH * row.length / self.usual)
        there = {word: row.counts[word] for word in words if word in row.counts}
        total = sum(self._rarity(word) * n / (n + long) for word, n in there.items())
        asked = sum(map(self._rarity, words))
        return total * sum(map(self._rarity, there)) / asked if there else 0.0

    def _rarity(self, word: str) -> float:
        return 0.1 - math.log(self.shares.get(word, 1 / len(self.rows)))


_index = cache(_Index)  # built at the first search; the texts change with the program only


def search(query: str, language: str, *, first: str = "", most: int = 10) -> list[Hit]:
    """Guides that answer a query, best first, each with its best section.

    `first` is the audience that the reader belongs to.
    """
    index = _index(language)
    best: dict[tuple[str, str], tuple[float, _Row]] = {}
    for row in index.rows:
        page = (row.guide.audience, row.guide.slug)
        score = index.score(row, index.telling(query, row.guide.language))
        score *= OWN if row.guide.audience == first else 1
        if score > best.get(page, (0.0, row))[0]:
            best[page] = (score, row)
    ranked = sorted(best.values(), key=lambda found: -found[0])[:most]
    good = [row for score, row in ranked if score >= FAINT * ranked[0][0]]
    return [
        Hit(row.guide, row.section, _excerpt(row, index.telling(query, row.guide.language)))
        for row in good
    ]


def stems(text: str, language: str) -> list[str]:
    """The words of a text, cut so that forms of one word are the same; short ones are left out."""
    words = (word.lower() for word in _WORD.findall(text))
    told = (word for word in words if len(word) >= SHORTEST and word not in SILENT)
    return [_stem(word, language) for word in told]


@lru_cache(100)
def _stemmer(language: str, thread: int) -> Any:
    """One for each thread: it keeps the word that it cuts."""
    return snowballstemmer.stemmer(STEMMERS.get(language, "english"))


@lru_cache(20_000)
def _stem(word: str, language: str) -> str:
    return str(_stemmer(language, threading.get_ident()).stemWord(word))


def _row(guide: Guide, section: Section) -> _Row:
    counts: dict[str, float] = {}
    heading = section.title if section.level > 1 else ""
    parts = {"page": guide.title, "heading": heading, "text": section.text}
    for name, text in parts.items():
        for stem in stems(text, guide.language):
            counts[stem] = counts.get(stem, 0) + WEIGHTS[name]
    return _Row(guide, section, counts, len(section.text.split()))


def _excerpt(row: _Row, words: frozenset[str]) -> SafeString:
    """The part of a section that says most of what was asked, with the words marked."""
    said = _SENTENCE.split(row.section.text)
    found = [len(words & set(stems(sentence, row.guide.language))) for sentence in said]
    start = found.index(max(found))
    text = Truncator(" ".join(said[start:])).chars(EXCERPT)
    return format_html_join(
        "", "{}", ((_marked(part, words, row.guide.language),) for part in _WORD.split(text))
    )


def _marked(part: str, words: frozenset[str], language: str) -> str:
    is_asked = bool(words & set(stems(part, language)))
    return format_html("<mark>{}</mark>", part) if is_asked else part
