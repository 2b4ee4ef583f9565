import pytest

from dedup.ml import tuning
from dedup.ml.packing import TOKENS_PER_BATCH
from dedup.ml.tuning import BUDGETS, ROUNDS, Trial, Way


class Fed:
    """A scorer that keeps how it is fed."""

    def feed(self, *, tokens, threads):
        self.way = Way(tokens, threads)


@pytest.fixture
def fed():
    return Fed()


def run(trial, fed, monkeypatch, quickness):
    """All steps, where each way takes the seconds that `quickness` says, one after the other."""
    given = {way: iter(spent) for way, spent in quickness.items()}

    def seconds(scorer, way):
        return next(given[way]) if way in given else 1.0

    monkeypatch.setattr(tuning, "seconds", seconds)
    steps = 0
    while not trial.is_done:
        trial.step(fed)
        steps += 1
        assert fed.way == trial.usual
    return steps


def test_the_usual_way_is_left_for_one_that_was_quicker_each_time(fed, monkeypatch):
    trial = Trial(1)

    steps = run(trial, fed, monkeypatch, {Way(500, 1): [0.8, 0.6], Way(4_000, 1): [0.9, 0.9]})

    assert trial.best() == (Way(500, 1), pytest.approx(0.7))
    assert steps == ROUNDS * (len(BUDGETS) - 1)


@pytest.mark.parametrize("spent", [[0.96, 0.96], [0.5, 1.0], [1.5, 0.2]])
def test_what_may_be_noise_changes_nothing(fed, monkeypatch, spent):
    trial = Trial(1)

    run(trial, fed, monkeypatch, {Way(500, 1): spent})

    assert trial.best() == (trial.usual, 1.0)


def test_threads_stay_below_what_the_operator_allows(fed, monkeypatch):
    assert {way.threads for way in Trial(1).ways} == {1}
    assert {way.threads for way in Trial(6).ways} == {1, 2, 4, 6}
    assert Way(TOKENS_PER_BATCH, 6) not in Trial(6).ways

    trial = Trial(4)
    run(trial, fed, monkeypatch, {Way(TOKENS_PER_BATCH, 2): [0.4, 0.4]})
    assert trial.best()[0] == Way(TOKENS_PER_BATCH, 2)


def test_made_up_texts_are_short_and_long_and_always_the_same():
    short, long = tuning.made_up()

    assert [short, long] == list(tuning.made_up())
    assert max(len(p.newer) for p in short) < min(len(p.newer) for p in long)
