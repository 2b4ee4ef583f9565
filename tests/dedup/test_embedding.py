import numpy as np
import pytest

from dedup import embedding
from dedup.models import Embedding
from dedup.texts import text_of
from support.models import Question
from tests.factories import QuestionFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db


class CountingScorer(FakeScorer):
    def __init__(self):
        super().__init__()
        self.embedded = []

    def embed(self, texts):
        self.embedded += texts
        return super().embed(texts)


@pytest.fixture
def scorer():
    return CountingScorer()


@pytest.fixture
def question():
    return QuestionFactory()


def renew(scorer, *questions):
    return embedding.renew([text_of(question) for question in questions], scorer=scorer)


def test_a_new_question_gets_a_vector_with_the_hash_of_its_text(question, scorer):
    vectors = renew(scorer, question)

    row = Embedding.objects.get(question=question)
    assert (row.text_hash, row.fingerprint) == (text_of(question).hash, "e" * 64)
    assert list(row.vector) == pytest.approx(vectors[question.pk], abs=1e-3)


def test_a_vector_that_fits_is_not_made_again(question, scorer):
    first = renew(scorer, question)

    second = renew(scorer, question)

    assert len(scorer.embedded) == 1
    assert np.allclose(first[question.pk], second[question.pk], atol=1e-3)


def test_only_what_is_stale_is_embedded(question, scorer):
    renew(scorer, question)
    new = QuestionFactory()

    vectors = renew(scorer, question, new)

    assert scorer.embedded[1:] == [text_of(new).input]
    assert set(vectors) == {question.pk, new.pk}


def test_an_edit_makes_a_vector_stale(question, scorer):
    renew(scorer, question)
    question.body = "Now it hums."
    question.save()

    renew(scorer, question)

    assert Embedding.objects.get().text_hash == text_of(question).hash


def test_another_bi_encoder_makes_all_vectors_stale(question, scorer):
    renew(scorer, question)
    scorer.embedding_fingerprint = "d" * 64

    renew(scorer, question)

    assert Embedding.objects.get().fingerprint == "d" * 64


def test_an_edit_that_came_meanwhile_keeps_its_newer_vector(question, scorer):
    old = text_of(question)
    question.body = "Now it hums."
    question.save()
    renew(scorer, question)

    embedding.renew([old], scorer=scorer)

    newer = text_of(Question.objects.get(pk=question.pk))
    assert Embedding.objects.get().text_hash == newer.hash != old.hash


def test_nothing_to_embed_asks_no_network(scorer):
    assert embedding.renew([], scorer=scorer) == {}
    assert scorer.embedded == []


def test_where_the_network_fails_nothing_is_stored(question, scorer):
    scorer.broken_by = "dark"

    with pytest.raises(FloatingPointError):
        renew(scorer, question)

    assert not Embedding.objects.exists()
