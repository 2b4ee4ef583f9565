"""Releases and what they said, flags and what people said of them, and
what came of suggestions."""

from dedup.models.deflection import Deflection
from dedup.models.draft import Draft
from dedup.models.flag import Flag, FlagQuerySet
from dedup.models.release import DIMENSIONS, Embedding, Release, Score
from dedup.models.review import BlindItem, Review, ReviewQuerySet, SavedView

__all__ = [
    "DIMENSIONS",
    "BlindItem",
    "Deflection",
    "Draft",
    "Embedding",
    "Flag",
    "FlagQuerySet",
    "Release",
    "Review",
    "ReviewQuerySet",
    "SavedView",
    "Score",
]
