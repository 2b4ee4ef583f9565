import numpy as np
import pytest

from dedup.ml import simulating
from dedup.ml.data import Labelled
from dedup.ml.finetuning import Plan
from dedup.ml.simulating import Asked, Simulation, clusters_of, make_portal
from tests.dedup.ml.networks import write_base, write_rows

THINGS = ["door", "window", "car", "shop", "bill"]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    numbers = range(40)
    write_rows(folder, "qqp_dev", [
        {"q1": f"open the {a} {n}", "q2": f"{verb} my {a} {n}", "label": int(verb == "open")}
        for n in numbers for a in THINGS for verb in ("open", "close")
    ])  # fmt: skip
    for name in simulating.FORUMS:
        write_rows(folder, name, [
            {"q_title": f"new {a} {name}", "q_body": "in my shop", "c_title": f"old {a} {n}",
             "c_body": name, "label": n % 2, "qid": a, "cid": a, "rank": 1}
            for a in THINGS for n in range(4)
        ])  # fmt: skip
    return folder


@pytest.fixture
def simulation(data, tmp_path):
    portal = make_portal(data, 300, seed=1)
    plan = Plan(epochs=1, batch=16, rate=1e-3)
    base = write_base(tmp_path / "base")
    start = simulating.make_start(portal, base, tmp_path / "start", plan=plan)
    return Simulation(portal, base, start, tmp_path / "out", seed=1, wrong=0.1, plan=plan)


def test_pairs_that_share_a_text_over_any_steps_are_of_one_cluster():
    pairs = [Labelled("a", "b", 1.0), Labelled("c", "d", 0.0), Labelled("b", "e", 0.0),
             Labelled("e", "f", 1.0)]  # fmt: skip

    assert clusters_of(pairs).tolist() == [0, 1, 0, 0]


def test_no_question_that_is_held_can_be_asked_about(simulation):
    portal = simulation.portal

    asked = {text for pair in portal.pool for text in (pair.first, pair.second)}
    held = {text for pair in portal.held for text in (pair.first, pair.second)}

    assert 300 <= len(portal.pool) < 340
    assert len(portal.held) > 40
    assert not asked & held


def test_agents_are_wrong_as_often_as_they_are_meant_to_be(simulation):
    simulation.ask(300, as_portal=False)

    wrong = [
        one.label != simulation.portal.pool[one.row].label for one in simulation.asked.values()
    ]
    assert 0.05 < np.mean(wrong) < 0.16


def test_what_is_chosen_has_no_share_and_calibrates_nothing(simulation):
    ranked = np.linspace(0.05, 0.95, len(simulation.portal.pool))
    simulation._score = lambda: ranked

    simulation.ask(100, as_portal=True)

    shares = [one.share for one in simulation.asked.values()]
    assert len(shares) == 100
    assert 20 < shares.count(None) <= 35
    assert all(0 < share <= 1 for share in shares if share is not None)


def test_what_is_asked_more_often_counts_for_less_in_a_calibration(simulation):
    """Of a lane of which all were asked and one of which a tenth was: the prior is of all."""
    asked = [Asked(row, float(row % 2), 1.0 if row % 2 else 0.1) for row in range(100)]

    found = simulation._calibrated(np.zeros(100), asked)

    assert found.prior == pytest.approx(1 / 11)


def test_a_loop_gives_a_release_after_each_number_of_verdicts(simulation):
    found = simulation.run([60, 120], as_portal=True)

    assert [one.verdicts for one in found] == [0, 60, 120]
    assert all(len(one.probabilities) == len(simulation.portal.held) for one in found)
    assert not np.allclose(found[1].probabilities, found[2].probabilities)


def test_the_same_seed_asks_the_same(simulation, data, tmp_path):
    portal = make_portal(data, 300, seed=1)
    again = Simulation(
        portal,
        simulation.base,
        simulation.start,
        tmp_path / "again",
        seed=1,
        wrong=0.1,
        plan=simulation.plan,
    )  # fmt: skip

    simulation.ask(50, as_portal=False)
    again.ask(50, as_portal=False)

    assert simulation.asked == again.asked
