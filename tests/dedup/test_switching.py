"""Releases are switched under load: each score is what the release says that it names."""

import threading
import time
import uuid

import pytest
from django.db import connection
from django.test import Client

from dedup import pipeline, promoting, releases, reranking, scoring
from dedup.ml.pairs import Judged
from dedup.models import Draft, Flag, Score
from dedup.texts import text_of
from support import asking
from support.models import OutboxEntry
from tests.dedup.folders import write_release
from tests.dedup.test_promoting import measured
from tests.factories import ProductFactory, UserFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db(transaction=True)

SWITCHES = 12
QUESTIONS = 30


class Contrary(FakeScorer):
    """Says of every pair the opposite."""

    def _judge(self, pair, cosine):
        said = super()._judge(pair, cosine)
        return Judged(-said.logit, cosine, 1 - said.probability)


@pytest.fixture
def two(tmp_path, settings, monkeypatch):
    """Two releases with opposite answers, the first in service; and what judges for them."""
    settings.DEDUP_ARTIFACTS, settings.DEDUP_SHORTLIST = tmp_path, 6
    first = releases.activate(release=releases.add(write_release(tmp_path, "first").name))
    second = releases.add(write_release(tmp_path, "second").name)
    measured(second, first)
    judges = {first.pk: FakeScorer(), second.pk: Contrary()}

    def opened(release):
        time.sleep(0.02)  # as if networks loaded: time for a check in another thread
        return judges[release.pk]

    monkeypatch.setattr(scoring, "_loaded", None)
    monkeypatch.setattr(scoring, "_open", opened)
    return first, second, judges


class Load:
    """Checks, suggestions and readers that go on until it ends; what went wrong is kept."""

    def __init__(self, *acts):
        self.ending, self.errors, self.done = threading.Event(), [], dict.fromkeys(acts, 0)
        self.threads = [threading.Thread(target=self._run, args=[act]) for act in acts]

    def _run(self, act):
        try:
            while not self.ending.is_set():
                act()
                self.done[act] += 1
        except Exception as error:
            self.errors.append(error)
        finally:
            connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()


def check():
    if not pipeline.check_waiting(limit=2):
        time.sleep(0.01)


def suggest():
    draft = Draft.objects.create(id=uuid.uuid4(), text="How do I change the bulb?")
    reranking.answer(draft.pk)
    draft.refresh_from_db()
    assert draft.found is not None


def read():
    assert Client().get("/").status_code == 200


def test_whatever_is_switched_meanwhile_each_score_is_what_its_release_says(two, bells):
    first, second, judges = two
    product, by, admin = ProductFactory(), UserFactory(), UserFactory()

    with Load(check, suggest, read) as load:
        for number in range(QUESTIONS):
            asking.submit_question(
                product=product, title=f"How do I change bulb {number}?", body="It went dark.",
                audience="public", by=by,
            )  # fmt: skip
            if number * SWITCHES // QUESTIONS != (number + 1) * SWITCHES // QUESTIONS:
                if releases.active() == first:
                    promoting.promote(release=second, by=admin, reason="a drill")
                else:
                    releases.roll_back(by=admin)
        deadline = time.monotonic() + 60
        while OutboxEntry.objects.unchecked().exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    assert load.errors == []
    assert all(load.done.values()), load.done
    assert not OutboxEntry.objects.unchecked().exists()
    scores = list(Score.objects.select_related("older", "newer"))
    assert {score.release_id for score in scores} == {first.pk, second.pk}
    for score in scores:
        pair = scoring.pair_of(text_of(score.older), text_of(score.newer))
        (said,) = judges[score.release_id].judge([pair], [score.cosine])
        assert score.probability == said.probability
    for flag in Flag.objects.select_related("release"):
        score = Score.objects.get(older=flag.older_id, newer=flag.newer_id, release=flag.release)
        assert (flag.probability, flag.probability >= flag.release.threshold) == (
            score.probability, True,
        )  # fmt: skip
