"""Releases and what they said, flags and what people said of them."""

from dedup.models.draft import Draft
from dedup.models.flag import Flag, FlagQuerySet
from dedup.models.release import DIMENSIONS, Embedding, Release, Score
from dedup.models.review import Review, ReviewQuerySet

__all__ = [
    "DIMENSIONS",
    "Draft",
    "Embedding",
    "Flag",
    "FlagQuerySet",
    "Release",
    "Review",
    "ReviewQuerySet",
    "Score",
]
