import copy

import numpy as np
import pytest
from django.utils import translation

from dedup import gates
from dedup.gates import OPEN, SHUT, UNKNOWN, Shadowed, Shown, stability_index, widened
from dedup.ml import reporting
from dedup.ml.reporting import Held, Said


def lead(value, reach=0.02):
    return {"value": value, "low": value - reach, "high": value + reach, "p": 0.5}


def report(**changes):
    """Of a release that is as good as the one in service, everywhere."""
    even = {"average_precision": lead(0.0), "calibration_error": lead(0.0)}
    row = {"value": "lamp", "pairs": 90, "duplicates": 30, "clusters": 40, "leads": even}
    own = {
        "pairs": 90, "duplicates": 30, "clusters": 40, "figures": {"average_precision": {}},
        "leads": even, "fewest": {"pairs": 50, "duplicates": 10, "clusters": 10},
        "segments": {
            "product": [row, {**row, "value": "door"}, {**row, "value": "rare", "leads": {}}],
        },
    }  # fmt: skip
    whole = {
        "own": own, "speed": {"milliseconds_median": 100.0},
        "speed_against": {"milliseconds_median": 100.0},
    }  # fmt: skip
    return {**whole, **changes}


def shadowed(shift=0.0, count=1_000, threshold=0.8):
    active = np.random.default_rng(1).uniform(size=count)
    return Shadowed(active, np.clip(active + shift, 0, 1), 0.8, threshold)


def states(**changes):
    given = {"refused": "", "is_proved": True, "report": report(), "shadowed": shadowed()}
    return {gate.name: gate.state for gate in gates.judge(Shown(**{**given, **changes}))}


def with_leads(where, **leads):
    made = copy.deepcopy(report())
    (made["own"] if where is None else made["own"]["segments"]["product"][where])["leads"] = leads
    return made


def test_a_release_that_is_as_good_everywhere_passes_every_gate():
    assert set(states().values()) == {OPEN}


def test_what_nobody_knows_keeps_it_out():
    found = states(report=None, shadowed=None, is_proved=False)

    assert found.pop("files") == OPEN
    assert set(found.values()) == {UNKNOWN}


def test_files_that_changed_keep_it_out_and_nobody_can_overrule_that():
    found = gates.judge(Shown("a bit flipped", False, None, None))

    shut = {gate.name: gate for gate in gates.shut(found)}
    assert shut["files"].state == SHUT
    assert not shut["files"].may_be_overruled
    assert not shut["golden"].may_be_overruled
    assert shut["segments"].may_be_overruled


@pytest.mark.parametrize(
    "leads",
    [
        {"average_precision": lead(-0.03)},
        {"average_precision": lead(0.0), "calibration_error": lead(0.03)},
        {"average_precision": lead(0.0), "recall_at_wanted": lead(-0.03)},
    ],
)
def test_a_release_that_is_worse_over_all_is_kept_out(leads):
    assert states(report=with_leads(None, **leads))["overall"] == SHUT


def test_a_release_that_may_be_worse_by_chance_is_not_kept_out():
    assert states(report=with_leads(None, average_precision=lead(-0.01)))["overall"] == OPEN


def test_a_release_that_is_worse_in_one_segment_only_is_kept_out():
    found = states(report=with_leads(1, average_precision=lead(-0.05)))

    assert (found["segments"], found["overall"]) == (SHUT, OPEN)


def test_a_segment_is_named_as_people_call_it():
    worse = with_leads(1, average_precision=lead(-0.05))
    rows = worse["own"]["segments"].pop("product")
    worse["own"]["segments"] = {"asker": [rows[0], {**rows[1], "value": "guest"}]}

    found = {gate.name: gate.found for gate in gates.judge(Shown("", True, worse, None))}

    assert found["segments"].startswith("Who asked Guests: ranking (average precision) −5.0 points")


def test_a_segment_that_is_hardly_worse_is_not_called_worse_where_many_are_compared():
    barely = with_leads(1, average_precision=lead(-0.021))
    alone = copy.deepcopy(barely)
    alone["own"]["segments"]["product"] = [alone["own"]["segments"]["product"][1]]

    assert states(report=alone)["segments"] == SHUT
    assert states(report=barely)["segments"] == OPEN


def test_an_interval_grows_with_the_number_of_tests():
    one, twenty = widened(lead(0.0), 1), widened(lead(0.0), 20)

    assert one == pytest.approx((-0.02, 0.02))
    assert twenty == pytest.approx((-0.0308, 0.0308), abs=1e-4)


def test_too_few_judged_pairs_keep_it_out_and_it_says_how_many_are_missing():
    few = copy.deepcopy(report())
    few["own"] |= {"figures": {}, "leads": {}, "pairs": 11, "duplicates": 9, "clusters": 9}
    few["own"]["segments"]["product"] = []

    found = {gate.name: gate for gate in gates.judge(Shown("", True, few, shadowed()))}

    assert [found[name].state for name in ("labels", "overall", "segments")] == [
        SHUT, UNKNOWN, UNKNOWN,
    ]  # fmt: skip
    assert found["labels"].found == (
        "Measured on: 11 pairs, 9 of them duplicates, in 9 groups. Missing: 39 pairs, 1 duplicate,"
        " 8 pairs that are none, 1 group of questions."
    )
    assert "Evaluate it" not in found["overall"].found + found["segments"].found
    assert "measured on too few pairs" in found["overall"].found


def test_how_much_worse_it_is_is_said_in_points_as_the_reader_writes_numbers():
    worse = with_leads(None, average_precision=lead(-0.0314))
    with translation.override("de"):
        found = {gate.name: gate.found for gate in gates.judge(Shown("", True, worse, None))}

    assert "−3,1 " in found["overall"]
    assert "(−5,1 " in found["overall"]


def test_a_slow_release_is_kept_out():
    slow = report(speed={"milliseconds_median": 151.0})

    assert states(report=slow)["latency"] == SHUT


def test_a_few_pairs_in_the_shadow_say_nothing():
    assert states(shadowed=shadowed(count=gates.FEWEST_SHADOWED - 1))["drift"] == UNKNOWN


def test_a_release_that_would_flag_thrice_as_much_is_kept_out():
    assert states(shadowed=shadowed(threshold=0.4))["drift"] == SHUT


def test_a_release_whose_scores_are_wholly_others_is_kept_out():
    assert states(shadowed=shadowed(shift=0.3))["drift"] == SHUT


def test_the_index_is_none_for_the_same_and_stays_finite_for_what_was_never_seen():
    values = np.linspace(0, 1, 500)

    assert stability_index(values, values) == 0
    assert 2 < stability_index(values, np.full(500, 2.0)) < 50


def held(count=1_200):
    """Pairs that people judged, of two products."""
    rng = np.random.default_rng(3)
    labels = (rng.uniform(size=count) < 0.4).astype(float)
    products = [{"product": "lamp" if n % 2 else "door"} for n in range(count)]
    return Held([None] * count, labels, np.ones(count), list(range(count)), products)


def said(name, held, noise, *, product=None):
    """A release that is right but for noise; of one product only, where one is named."""
    rng = np.random.default_rng(5)
    is_noisy = [product is None or one["product"] == product for one in held.segments]
    reach = np.where(is_noisy, noise, 0.3)
    logits = 4 * (held.labels - 0.5) + reach * rng.normal(size=len(held.labels)) * 4
    return Said(name, 1 / (1 + np.exp(-logits)), 0.5)


@pytest.mark.parametrize(
    ("noise", "product", "overall", "segments"),
    [(0.3, None, OPEN, OPEN), (0.9, None, SHUT, SHUT), (0.45, "lamp", None, SHUT)],
)
def test_gates_are_shut_by_real_figures_of_worse_releases(noise, product, overall, segments):
    pairs = held()
    own = reporting.on_own_pairs(
        pairs, said("new", pairs, noise, product=product), 0.9, said("active", pairs, 0.3)
    )

    found = states(report=report(own=own))

    assert found["segments"] == segments
    assert overall in {None, found["overall"]}
