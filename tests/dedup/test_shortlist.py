import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection

from dedup import embedding, shortlist
from dedup.models import DIMENSIONS, Embedding
from dedup.texts import text_of
from support import merging
from support.models import Question
from tests.factories import ProductFactory, QuestionFactory, UserFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db

FINGERPRINT = FakeScorer.embedding_fingerprint


def ask(title, body="", **fields):
    question = QuestionFactory(title=title, body=body, **fields)
    embedding.renew([text_of(question)], scorer=FakeScorer())
    return question


def draw(text, readable=None, *, limit=5, fingerprint=FINGERPRINT, vector=None):
    if readable is None:
        readable = Question.objects.all()
    if vector is None:
        vector = FakeScorer().embed([text])[0]
    return shortlist.draw(readable, text=text, vector=vector, fingerprint=fingerprint, limit=limit)


def ids(candidates):
    return [candidate.question_id for candidate in candidates]


def scatter(number, *, seed=7):
    """Questions with vectors that point anywhere; returns a vector to look from."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(number + 1, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asker, product = UserFactory(), ProductFactory()
    questions = Question.objects.bulk_create(
        Question(title=f"No. {n}", asked_by=asker, product=product) for n in range(number)
    )
    Embedding.objects.bulk_create(
        Embedding(question=question, vector=vector, text_hash="t", fingerprint=FINGERPRINT)
        for question, vector in zip(questions, vectors, strict=False)
    )
    return vectors[-1]


def test_the_nearest_come_first_with_their_cosine():
    far = ask("Where is my invoice for March?")
    near = ask("The blue lamp does not glow")

    first, *_ = draw("The blue lamp does not glow")

    assert first.question_id == near.pk != far.pk
    assert first.cosine == pytest.approx(1, abs=1e-3)
    assert first.text_hash == text_of(near).hash


def test_a_ranking_is_fused_by_reciprocal_ranks():
    assert shortlist.fuse([[1, 2, 3], [3, 1, 4]]) == [1, 3, 2, 4]
    assert shortlist.fuse([[2], [1]]) == [1, 2]
    assert shortlist.fuse([]) == []


def test_words_find_what_vectors_miss():
    ask("Something about lamps")
    known = QuestionFactory(title="Firmware Zirkonia bricks after reboot", body="")

    found = draw("zirkonia")

    assert known.pk in ids(found)
    assert found[ids(found).index(known.pk)].cosine is None


def test_vectors_find_what_words_miss():
    known = ask("and the of")  # nothing that full text keeps

    assert ids(draw("and the of")) == [known.pk]


def test_the_rarest_words_of_a_text_are_looked_for():
    for _ in range(30):
        QuestionFactory(title="The lamp is dark again and dim", body="")
    QuestionFactory(title="Zirkonia", body="")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE support_question")

    rare = shortlist._rare_lexemes("dark dim lamp zirkonia bulb socket wire fuse")

    assert len(rare) == shortlist.RARE_WORDS
    assert not {"dark", "dim", "lamp"} & set(rare[:5])


def test_a_text_without_words_findsby_vector_alone():
    known = ask("The blue lamp")

    assert ids(draw("", vector=FakeScorer().embed(["The blue lamp"])[0])) == [known.pk]


@pytest.mark.parametrize(
    "hostile", ["a'b\\c", "!&|():*<->", "' | '", "\u202e\U0001f4a1", "%s %(x)s"]
)
def test_any_text_can_be_looked_for(hostile):
    ask("The blue lamp")

    assert len(draw(f"{hostile} lamp")) == 1


def test_what_may_not_be_read_is_left_out_before_anything_is_ranked():
    """Fifty private questions that are nearer must not use up the places."""
    for number in range(50):
        ask(f"blue lamp broken {number}", audience="private")
    public = ask("blue curtain")
    readable = Question.objects.visible_to(AnonymousUser())

    assert ids(draw("blue lamp broken", readable, limit=3)) == [public.pk]


def test_vectors_of_another_bi_encoder_are_not_compared():
    known = ask("and the of")

    assert draw("and the of", fingerprint="d" * 64) == []
    assert ids(draw("and the of")) == [known.pk]


def test_a_merged_question_names_the_one_that_stands_for_it(admin):
    canonical, duplicate = ask("Where is my invoice?"), ask("The blue lamp does not glow")
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    first, *_ = draw("The blue lamp does not glow")

    assert (first.question_id, first.root_id) == (duplicate.pk, canonical.pk)


def test_at_most_as_many_as_wanted_are_returned():
    for number in range(8):
        ask(f"blue lamp {number}")

    assert len(draw("blue lamp", limit=3)) == 3


def force_index():
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")


def test_the_index_finds_what_the_exact_scan_finds(monkeypatch):
    vector = scatter(600)
    exact = shortlist.by_vector(Question.objects.all(), vector, FINGERPRINT, 20)
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 100)
    force_index()

    approximate = shortlist.by_vector(Question.objects.all(), vector, FINGERPRINT, 20)

    assert len(set(exact) & set(approximate)) >= 19


@pytest.mark.django_db(transaction=True)
def test_the_index_gives_as_many_as_are_wanted_though_nobody_opened_a_transaction(monkeypatch):
    vector = scatter(150)
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 100)
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_sort = off")

    try:
        found = shortlist.by_vector(Question.objects.all(), vector, FINGERPRINT, 100)
    finally:
        connection.close()

    assert len(found) == 100


def test_above_the_bound_the_index_is_walked_and_below_it_is_not(
    monkeypatch, django_assert_num_queries
):
    vector = scatter(30)
    with django_assert_num_queries(2) as below:
        shortlist.by_vector(Question.objects.all(), vector, FINGERPRINT, 5)
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 29)

    with django_assert_num_queries(3) as above:
        shortlist.by_vector(Question.objects.all(), vector, FINGERPRINT, 5)

    assert "MATERIALIZED" in below[-1]["sql"]
    assert "hnsw.iterative_scan" in above[1]["sql"]


def test_the_index_still_finds_all_neighbours_where_a_filter_keeps_few(monkeypatch):
    vector = scatter(600)
    few = Question.objects.filter(title__endswith="7")  # 60 of 600
    exact = shortlist.by_vector(few, vector, FINGERPRINT, 20)
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 20)
    force_index()

    approximate = shortlist.by_vector(few, vector, FINGERPRINT, 20)

    assert len(set(exact) & set(approximate)) >= 19
