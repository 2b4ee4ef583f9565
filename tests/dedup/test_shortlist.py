import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction

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


def test_what_both_rankings_name_comes_first_and_vectors_win_a_tie():
    assert shortlist.fuse(near=[1, 2, 3], worded=[3, 1, 4]) == [1, 3, 2, 4]
    assert shortlist.fuse(near=[2], worded=[1]) == [2, 1]
    assert shortlist.fuse(near=[], worded=[5, 4]) == [5, 4]
    assert shortlist.fuse(near=[], worded=[]) == []


def test_the_likeliest_by_words_alone_gets_a_place_among_those_by_vectors():
    assert 99 in shortlist.fuse(near=list(range(16)), worded=[99])[:16]


def test_words_find_what_vectors_miss():
    ask("Something about lamps")
    known = QuestionFactory(title="Firmware Zirkonia bricks after reboot", body="")

    found = draw("zirkonia")

    assert known.pk in ids(found)
    assert found[ids(found).index(known.pk)].cosine is None


def test_vectors_find_what_words_miss():
    known = ask("and the of")  # nothing that full text keeps

    assert ids(draw("and the of")) == [known.pk]


def rare_words(text):
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE support_question")
        cursor.execute(shortlist.RARE, [text, shortlist.RARE_WORDS, shortlist.WORD_ROWS])
        return dict(cursor.fetchall())


def test_the_rarest_words_of_a_text_are_looked_for_and_count_most():
    for _ in range(30):
        QuestionFactory(title="The lamp is dark again and dim", body="")
    QuestionFactory(title="Zirkonia", body="")

    rare = rare_words("dark dim lamp again zirkonia bulb socket wire fuse plug")

    assert len(rare) == shortlist.RARE_WORDS
    assert len({"dark", "dim", "lamp"} & set(rare)) == 2
    assert rare["zirkonia"] > rare["lamp"] >= 0
    assert rare["bulb"] > rare["lamp"]


def test_words_that_stand_in_too_many_questions_are_not_looked_for_beside_rarer_ones(monkeypatch):
    for _ in range(30):
        QuestionFactory(title="The lamp is dark", body="")
    QuestionFactory(title="Zirkonia", body="")
    monkeypatch.setattr(shortlist, "WORD_ROWS", 20)

    assert set(rare_words("dark lamp zirkonia")) == {"zirkonia"}
    assert len(rare_words("dark lamp")) == 1


def test_a_rare_word_outweighs_a_frequent_one_and_short_questions_do_not_win_by_length():
    for _ in range(30):
        QuestionFactory(title="Lamp", body="")
    known = QuestionFactory(title="Does the zirkonia stop when the house is cold?", body="")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE support_question")

    assert shortlist.by_words(Question.objects.all(), "zirkonia lamp", 3)[0] == known.pk


def test_a_text_without_words_finds_by_vector_alone():
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


def walk_the_index(monkeypatch):
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 0)
    monkeypatch.setattr(shortlist, "WALK_COST", 0)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")


def test_the_index_finds_what_the_exact_scan_finds(monkeypatch):
    vector = scatter(600)
    exact = shortlist.by_vector(Question.objects.all(), vector, FINGERPRINT, 20)
    walk_the_index(monkeypatch)

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


def are_few(number, limit=50):
    ids, params = Question.objects.order_by().values("pk")[:number].query.sql_with_params()
    with transaction.atomic():
        return shortlist._are_few(ids, params, limit)


def test_distances_are_all_computed_where_that_is_sooner_than_a_walk(monkeypatch):
    scatter(400)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE dedup_embedding")
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 20)

    assert are_few(316)  # the root of 5 * 50 * 400 is 316.2
    assert not are_few(317)
    assert are_few(63, limit=2)
    assert not are_few(64, limit=2)


def test_few_are_computed_whatever_the_statistics_say(monkeypatch):
    scatter(30)
    monkeypatch.setattr(shortlist, "WALK_COST", 0)
    monkeypatch.setattr(shortlist, "EXACT_BELOW", 30)
    assert are_few(30)

    monkeypatch.setattr(shortlist, "EXACT_BELOW", 29)
    assert not are_few(30)


def test_a_shortlist_takes_four_statements(django_assert_num_queries):
    ask("The blue lamp")

    with django_assert_num_queries(4):
        draw("The blue lamp")


def test_the_index_still_finds_all_neighbours_where_a_filter_keeps_few(monkeypatch):
    vector = scatter(600)
    few = Question.objects.filter(title__endswith="7")  # 60 of 600
    exact = shortlist.by_vector(few, vector, FINGERPRINT, 20)
    walk_the_index(monkeypatch)

    approximate = shortlist.by_vector(few, vector, FINGERPRINT, 20)

    assert len(set(exact) & set(approximate)) >= 19
