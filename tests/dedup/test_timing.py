from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from dedup import pipeline, suggesting, timing
from dedup.models import StageTime
from support import outbox
from tests.factories import QuestionFactory, UserFactory

NOW = datetime(2026, 11, 28, 12, 34, tzinfo=UTC)


def histogram(*seconds):
    return timing.Histogram(Counter(timing.bucket_of(one) for one in seconds))


@given(st.floats(0.0011, 3000), st.integers(1, 50))
def test_what_is_read_from_a_histogram_lies_in_the_same_bar(seconds, times):
    found = histogram(*[seconds] * times)

    assert seconds / 1.4143 <= found.p50 <= seconds * 1.4143
    assert timing.upper_end(timing.bucket_of(seconds)) >= seconds * 0.999999


def test_percentiles_are_of_all_that_was_counted():
    found = histogram(*[0.01] * 90, *[1.0] * 10)

    assert found.count == 100
    assert found.p50 < 0.012
    assert 0.7 <= found.p95 <= 1.0
    assert histogram().p95 is None


@pytest.mark.django_db
class TestStageTimes:
    def test_two_batches_of_an_hour_are_added_up(self):
        timing.write(Counter({("score", 3): 2, ("embed", 4): 1}), now=NOW)
        timing.write(Counter({("score", 3): 5}), now=NOW + timedelta(minutes=5))

        row = StageTime.objects.get(stage="score")
        assert (row.count, row.bucket) == (7, 3)
        assert row.hour == NOW.replace(minute=0)
        assert row.last_at == NOW + timedelta(minutes=5)

    def test_a_batch_of_checks_writes_once_and_counts_each_question(
        self, scorer, django_capture_on_commit_callbacks, monkeypatch
    ):
        written = []
        write = timing.write
        monkeypatch.setattr(timing, "write", lambda *a, **k: written.append(a) or write(*a, **k))
        for _ in range(3):
            outbox.put(QuestionFactory(title="My blue lamp is dark"))
        pipeline.check_waiting(limit=16)

        assert len(written) == 1
        found = timing.histograms(since=NOW - timedelta(days=9999), until=NOW.replace(year=2999))
        assert {name: one.count for name, one in found.items()} == dict.fromkeys(
            ["claim", "embed", "shortlist", "score", "align", "write", "waited"], 3
        )

    def test_nothing_to_do_is_nothing_to_write(self, scorer):
        pipeline.check_waiting(limit=16)

        assert not StageTime.objects.exists()

    def test_a_check_that_fails_is_counted_as_such(self, scorer):
        scorer.broken_by = "dark"
        outbox.put(QuestionFactory(title="My blue lamp is dark"))
        pipeline.check_waiting(limit=16)

        assert StageTime.objects.get(stage="failed").count == 1
        assert not StageTime.objects.filter(stage__in=["write", "waited"]).exists()

    def test_a_check_without_aligned_words_is_counted(self, scorer, monkeypatch):
        def fail(pairs):
            raise ValueError

        monkeypatch.setattr(scorer, "align", fail)
        outbox.put(QuestionFactory())
        pipeline.check_waiting(limit=16)

        assert StageTime.objects.get(stage="unaligned").count == 1

    def test_that_times_cannot_be_written_stops_no_check(self, scorer, monkeypatch):
        def away():
            raise DatabaseError

        question = QuestionFactory()
        outbox.put(question)
        monkeypatch.setattr(timing, "connection", type("Away", (), {"cursor": staticmethod(away)}))

        assert pipeline.check_waiting(limit=16) == 1

    def test_a_suggestion_without_a_worker_is_counted_as_words_alone(self, monkeypatch):
        monkeypatch.setattr(outbox, "send", lambda *a, **k: False)
        suggesting.similar(title="Where is the switch?", reader=UserFactory())

        assert StageTime.objects.get().stage == "suggest_words"

    def test_percentiles_by_day(self):
        for days in (0, 0, 1):
            timing.write(Counter({("score", 3): 2}), now=NOW - timedelta(days=days))
        found = timing.by_day(since=NOW - timedelta(days=3), until=NOW)

        assert [one.count for one in found["score"].values()] == [2, 4]

    def test_after_ninety_days_they_are_forgotten(self):
        timing.write(Counter({("score", 3): 2}), now=NOW - timedelta(days=91))
        timing.write(Counter({("score", 3): 2}), now=NOW)

        assert timing.forget_old(now=NOW) == 1
        assert StageTime.objects.count() == 1

    def test_one_bar_is_one_row_and_counts_something(self):
        row = {"hour": NOW, "stage": "score", "bucket": 1, "last_at": NOW}
        StageTime.objects.create(count=1, **row)
        with pytest.raises(IntegrityError, match="stagetime_once"), transaction.atomic():
            StageTime.objects.create(count=1, **row)
        with pytest.raises(IntegrityError, match="stagetime_counts"), transaction.atomic():
            StageTime.objects.create(count=0, **row | {"bucket": 2})
