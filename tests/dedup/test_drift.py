import math
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from dedup import drift
from dedup.ml.evaluation import psi
from dedup.models import Baseline, Score
from tests.dedup.watched import ask_many, store
from tests.factories import ProductFactory, ReleaseFactory, UserFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now().replace(microsecond=0)
ACTIVATED = NOW - timedelta(days=30)


@pytest.fixture
def release(db):
    return ReleaseFactory(is_active=True, activated_at=ACTIVATED)


def fill(release, *, questions, each, asked_at, power, **fields):
    """Questions with so many scores each; their probabilities are even numbers to this power."""
    others = ask_many(each, asked_at=asked_at - timedelta(days=99))
    rows = []
    for number, newer in enumerate(ask_many(questions, asked_at=asked_at, **fields)):
        for place, other in enumerate(others):
            even = ((number * each + place) % 97 + 0.5) / 97
            rows.append(
                Score(older=other, newer=newer, older_hash="o", newer_hash="n", release=release,
                      logit=0, cosine=1 - even, probability=even**power, scored_at=asked_at)
            )  # fmt: skip
    store(rows)


def by_segment(found, measure="probability"):
    return {one.segment: one for one in found if one.measure == measure}


def at_first(release, **fields):
    fill(release, questions=120, each=20, asked_at=ACTIVATED + timedelta(days=1), power=2, **fields)


def lately(release, power=2, questions=60, **fields):
    fill(release, questions=questions, each=20, asked_at=NOW - timedelta(days=1), power=power,
         **fields)  # fmt: skip


def test_the_index_is_the_sum_over_parts_and_nought_where_nothing_moved():
    then, now = [1000, 3000], [3000, 1000]
    by_hand = 2 * (0.75 - 0.25) * math.log(3)

    assert psi(then, now) == pytest.approx(by_hand, rel=0.002)
    assert psi([100, 300], [1, 3]) == pytest.approx(0, abs=0.1)
    assert psi(then, then) == 0
    assert math.isfinite(psi([0, 10], [10, 0]))


@pytest.mark.parametrize(("freedom", "point"), [(1, 3.841), (4, 9.488), (9, 16.919)])
def test_what_chance_gives_is_as_tables_say(freedom, point):
    assert drift.chi_square_95(freedom) == pytest.approx(point, rel=0.03)


def test_a_baseline_is_kept_once_there_is_enough_and_then_stays(release):
    at_first(release)
    assert len(drift.keep_baselines(now=NOW)) == 2
    lately(release, power=9)

    assert drift.keep_baselines(now=NOW) == []
    kept = Baseline.objects.get(measure="probability")
    assert len(kept.edges) == 9
    assert sum(kept.counts[""]) == 2400
    assert kept.questions[""] == 120
    assert max(kept.counts[""]) - min(kept.counts[""]) < 60  # ten parts of the same size


def test_too_few_scores_make_no_baseline(release):
    fill(release, questions=50, each=20, asked_at=ACTIVATED + timedelta(days=1), power=2)

    assert drift.keep_baselines(now=NOW) == []
    assert drift.drifts(release, now=NOW) == []


def test_within_its_first_week_a_release_has_no_baseline(release):
    at_first(release)

    assert drift.keep_baselines(now=ACTIVATED + timedelta(days=6)) == []


def test_older_questions_that_are_checked_again_are_no_news(release):
    at_first(release)
    drift.keep_baselines(now=NOW)
    Score.objects.update(scored_at=NOW - timedelta(hours=1))

    assert by_segment(drift.drifts(release, now=NOW))[""].scores_now == 0


def test_scores_as_at_first_are_steady_and_others_have_moved(release):
    at_first(release)
    drift.keep_baselines(now=NOW)
    lately(release)
    steady = by_segment(drift.drifts(release, now=NOW))[""]
    Score.objects.filter(scored_at__gt=NOW - timedelta(days=2)).delete()
    lately(release, power=6)
    moved = by_segment(drift.drifts(release, now=NOW))[""]

    assert (steady.state, round(steady.psi, 2)) == ("steady", 0.0)
    assert moved.state == "strong"
    assert moved.psi > drift.STRONG
    assert moved.scores_now == 1200
    assert moved.questions_now == 60


def test_a_segment_that_moves_is_found_though_all_together_hardly_do(release):
    guest, other = UserFactory(is_guest=True, password="!"), ProductFactory(slug="kettle")
    at_first(release)
    at_first(release, asked_by=guest, product=other, language="de", body="x" * 600)
    drift.keep_baselines(now=NOW)
    lately(release, questions=300)
    lately(release, power=9, asked_by=guest, product=other, language="de", body="x" * 600)
    found = by_segment(drift.drifts(release, now=NOW))

    moved = {name for name, one in found.items() if one.state in {"moved", "strong"}}
    assert moved - {""} == {f"product:{other.pk}", "language:de", "asker:guest", "length:long"}
    assert found["asker:known"].state == "steady"
    assert found["asker:guest"].questions_then == 120


def test_of_few_nothing_is_said(release):
    at_first(release)
    drift.keep_baselines(now=NOW)
    lately(release, power=9, questions=26)

    assert by_segment(drift.drifts(release, now=NOW))[""].state == "few"


def test_what_chance_alone_may_give_is_no_drift():
    few = drift.Drift("probability", "", [60] * 10, [90, 30] * 5, 31, 31)
    many = drift.Drift("probability", "", [60] * 10, [90, 30] * 5, 900, 900)

    assert few.psi == many.psi > drift.STRONG
    assert (few.state, many.state) == ("steady", "strong")


def test_the_cosine_is_watched_beside_the_probability(release):
    at_first(release)
    drift.keep_baselines(now=NOW)
    lately(release, power=9)

    assert by_segment(drift.drifts(release, now=NOW), "cosine")[""].state == "steady"


def test_one_baseline_for_each_measure(release):
    given = {"release": release, "measure": "cosine", "edges": [], "counts": {}, "questions": {},
             "begins_at": ACTIVATED, "ends_at": NOW}  # fmt: skip
    Baseline.objects.create(**given)

    with pytest.raises(IntegrityError, match="baseline_once"), transaction.atomic():
        Baseline.objects.create(**given)
    with pytest.raises(IntegrityError, match="baseline_ends_after"), transaction.atomic():
        Baseline.objects.create(**given | {"measure": "probability", "ends_at": ACTIVATED
                                           - timedelta(days=1)})  # fmt: skip


def test_scores_are_found_by_their_time(release):
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'score_by_time'")
        assert "(release_id, scored_at)" in cursor.fetchone()[0]


def test_segments_have_names_for_people():
    lamp = ProductFactory()
    names = drift.labels_of(["", f"product:{lamp.pk}", "language:", "language:de", "asker:guest"])

    assert names[""] == "All questions"
    assert names[f"product:{lamp.pk}"] == "Product: Lamp"
    assert names["language:"] == "Language: not known"
