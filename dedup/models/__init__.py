"""Releases and what they said, flags and what people said of them, what came of suggestions, long
work in the background, and what is watched."""

from dedup.models.deflection import Deflection
from dedup.models.draft import Draft
from dedup.models.flag import Flag, FlagQuerySet
from dedup.models.job import Job, JobQuerySet
from dedup.models.release import DIMENSIONS, Embedding, Release, Score
from dedup.models.report import Report
from dedup.models.review import BlindItem, Review, ReviewQuerySet, SavedView
from dedup.models.threshold import ThresholdChange
from dedup.models.watching import Alert, AlertQuerySet, Baseline, Delivery, StageTime, Worker

__all__ = [
    "DIMENSIONS",
    "Alert",
    "AlertQuerySet",
    "Baseline",
    "BlindItem",
    "Deflection",
    "Delivery",
    "Draft",
    "Embedding",
    "Flag",
    "FlagQuerySet",
    "Job",
    "JobQuerySet",
    "Release",
    "Report",
    "Review",
    "ReviewQuerySet",
    "SavedView",
    "Score",
    "StageTime",
    "ThresholdChange",
    "Worker",
]
