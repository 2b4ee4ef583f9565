"""Releases change places while checks run and people read: run, not imagined."""

import threading
import time
import uuid

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from dedup import pipeline, releases, reranking, scoring
from dedup.ml.pairs import Judged, Pair
from dedup.models import Draft, Flag, Release, Score
from dedup.scoring import pair_of
from dedup.texts import text_of
from support import outbox
from support.models import OutboxEntry
from tests.dedup.folders import write_release
from tests.factories import QuestionFactory
from tests.fakes import FakeScorer

SWITCHES = 24


class Halved(FakeScorer):
    """Finds everything half as likely as the fake that it is made of."""

    def _judge(self, pair, cosine):
        said = super()._judge(pair, cosine)
        return Judged(said.logit - 1, said.cosine, said.probability / 2)


@pytest.fixture
def two(tmp_path, settings, monkeypatch):
    """A release and the one that replaces it, each with answers of its own."""
    settings.DEDUP_ARTIFACTS = tmp_path
    first, second = (
        releases.add(write_release(tmp_path, name, threshold=0.3).name) for name in ("one", "two")
    )
    networks = {first.fingerprint: FakeScorer(), second.fingerprint: Halved()}
    for fingerprint, network in networks.items():
        network.fingerprint = fingerprint
        network.embedding_fingerprint = first.embedding_fingerprint
    monkeypatch.setattr(scoring, "_loaded", None)
    monkeypatch.setattr(scoring, "_open", lambda release: networks[release.fingerprint])
    releases.activate(release=first)
    return {first.pk: networks[first.fingerprint], second.pk: networks[second.fingerprint]}


def until(ended, work, errors):
    """Do `work` again and again in a thread of its own."""

    def loop():
        try:
            while not ended.is_set():
                work()
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            connection.close()

    thread = threading.Thread(target=loop)
    thread.start()
    return thread


@pytest.mark.django_db(transaction=True)
def test_every_score_names_the_release_that_gave_it_and_nobody_waits(two, bells):
    asked = [QuestionFactory(title=f"Lamp {n % 7} stays dark in room {n % 5}") for n in range(60)]
    for question in asked:
        outbox.put(question)
    ended, errors, statuses, switched, suggested = threading.Event(), [], [], [], []

    def check():
        if not pipeline.check_waiting(limit=3):
            outbox.put_all([question.pk for question in asked[:6]])

    def read():
        statuses.append(Client().get(reverse("home")).status_code)
        statuses.append(Client().get(asked[0].get_absolute_url()).status_code)

    def suggest():
        draft = Draft.objects.create(id=uuid.uuid4(), text="My lamp stays dark")
        reranking.answer(draft.pk)
        draft.refresh_from_db()
        suggested.append(draft.found)

    threads = [until(ended, work, errors) for work in (check, read, suggest)]
    second = Release.objects.get(name="two")
    for number in range(SWITCHES):
        time.sleep(0.1)
        by = releases.roll_back() if number % 2 else releases.activate(release=second)
        switched.append(by.name)
    time.sleep(0.3)
    ended.set()
    for thread in threads:
        thread.join()
    while pipeline.check_waiting(limit=16):
        pass

    assert not errors
    assert switched == ["two", "one"] * (SWITCHES // 2)
    assert set(statuses) == {200}
    assert suggested
    assert None not in suggested
    assert not OutboxEntry.objects.unchecked().exists()
    assert {row.release.name for row in Score.objects.select_related("release")} == {"one", "two"}
    assert_each_is_from_its_release(two)


def assert_each_is_from_its_release(networks):
    for row in Score.objects.select_related("older", "newer"):
        pair: Pair = pair_of(text_of(row.older), text_of(row.newer))
        (said,) = networks[row.release_id].judge([pair], [row.cosine])
        assert (row.logit, row.probability) == (said.logit, said.probability)
    for flag in Flag.objects.open():
        score = Score.objects.get(older=flag.older, newer=flag.newer, release=flag.release)
        assert flag.probability == score.probability
