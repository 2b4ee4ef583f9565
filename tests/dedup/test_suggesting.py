import threading
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from dedup import embedding, reranking, suggesting, tasks
from dedup.models import Draft
from dedup.suggesting import Ranking, Suggestion
from dedup.texts import text_of
from support import merging, outbox
from support.models import Question
from tests.factories import AnswerFactory, ProductFactory, QuestionFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db

TITLE = "My blue lamp is dark"


@pytest.fixture
def worker(scorer, monkeypatch):
    """A worker that answers at once; returns what was sent to it."""
    sent = []

    def send(task, *args, **options):
        sent.append((task, args, options))
        tasks.suggest(*args)
        return True

    monkeypatch.setattr(outbox, "send", send)
    return sent


@pytest.fixture
def no_worker(monkeypatch):
    monkeypatch.setattr(outbox, "send", lambda *args, **options: False)


def ask(title, **fields):
    question = QuestionFactory(title=title, body="", **fields)
    embedding.renew([text_of(question)], scorer=FakeScorer())
    return question


def similar(title=TITLE, reader=None, **options):
    return suggesting.similar(title=title, reader=reader or AnonymousUser(), **options)


def test_the_worker_s_answer_comes_likeliest_first(worker):
    near, same = ask("My blue lamp is broken"), ask(TITLE)
    ask("Where is the invoice of March")

    found = similar()

    assert found.questions == [same, near]
    assert found.by_meaning


def test_the_broker_carries_only_a_random_id_and_the_draft_is_gone_afterwards(worker):
    similar()

    ((task, (draft_id,), options),) = worker
    assert task == "dedup.tasks.suggest"
    assert uuid.UUID(draft_id)
    assert options == {"expires": 5}
    assert not Draft.objects.exists()


def test_without_a_worker_words_alone_are_used_and_that_is_said(no_worker):
    known = ask(TITLE)

    found = similar()

    assert (found.questions, found.by_meaning) == ([known], False)


@pytest.fixture
def silence(monkeypatch, settings):
    """A broker without a worker; returns what was sent."""
    settings.DEDUP_SUGGEST_SECONDS = suggesting.WORDS_SECONDS + 0.05
    sent = []
    monkeypatch.setattr(outbox, "send", lambda task, *args, **options: sent.append(args) or True)
    return sent


def test_a_worker_that_is_late_is_not_waited_for(silence):
    known = ask(TITLE)

    found = similar()

    assert (found.questions, found.ranked_by) == ([known], Ranking.WORDS)
    assert not Draft.objects.exists()


def test_where_no_worker_is_none_is_waited_for_again_and_again(silence, monkeypatch):
    known = ask(TITLE)
    found = [similar().questions for _ in range(5)]

    assert len(silence) == suggesting.MOST_MISSED
    assert found == [[known]] * 5

    monkeypatch.setattr(suggesting, "_silent_until", 0.0)  # as if the pause were over
    similar()
    similar()
    assert len(silence) == suggesting.MOST_MISSED + 1


def test_one_late_answer_after_another_that_came_stops_nothing(silence, scorer, monkeypatch):
    for is_late in (True, False, True, False, True):
        with monkeypatch.context() as patched:
            if not is_late:
                patched.setattr(outbox, "send", lambda _, pk, **__: tasks.suggest(pk) or True)
            similar()

    assert len(silence) == 3


def test_what_was_near_is_taken_where_reading_it_takes_too_long(scorer, monkeypatch, silence):
    near, far = ask(TITLE), ask("My blue lamp")

    def send(task, draft_id, **options):
        with pytest.raises(TimeoutError):
            tasks.suggest(draft_id)
        return True

    def stop(*_):
        raise TimeoutError

    monkeypatch.setattr(outbox, "send", send)
    monkeypatch.setattr(scorer, "judge", stop)
    found = similar()

    assert (found.questions, found.ranked_by) == ([near, far], Ranking.MEANING)


def test_a_slow_network_reads_the_nearest_only(worker, scorer, monkeypatch):
    monkeypatch.setattr(reranking, "SHARE", 0.0)
    for _ in range(8):
        ask(TITLE)

    found = similar()

    assert scorer.judged == reranking.AT_ONCE
    assert (len(found.found), found.ranked_by) == (reranking.AT_ONCE, Ranking.SCORES)


def test_a_search_gives_all_that_is_near_the_likeliest_first(worker):
    far = ask("Where is the lamp of my aunt and uncle from the invoice of last March, please?")
    near = ask(TITLE)

    found = similar(limit=60, only_likely=False)

    assert found.questions == [near, far]
    assert similar(limit=60).questions == [near]


def test_a_search_goes_on_behind_what_the_cross_encoder_reads(worker, scorer):
    asked = {ask(TITLE) for _ in range(reranking.RERANKED + 9)}

    found = similar(limit=60, only_likely=False)

    assert scorer.judged == reranking.RERANKED
    assert set(found.questions) == asked


def test_drafts_that_a_killed_page_left_are_removed_by_the_next(worker):
    old = timezone.now() - timedelta(seconds=61)
    Draft.objects.create(id=uuid.uuid4(), text="private", put_at=old)

    similar()

    assert not Draft.objects.exists()


def test_a_draft_that_is_gone_is_left_alone(scorer):
    tasks.suggest(str(uuid.uuid4()))

    assert scorer.judged == 0


@pytest.mark.parametrize("by", ["worker", "no_worker"])
def test_a_private_question_is_suggested_to_nobody_else(by, request, customer, agent):
    request.getfixturevalue(by)
    mine = ask(TITLE, audience="private", asked_by=customer)
    ask(TITLE, audience="private")
    public = ask("My blue lamp is out")

    assert similar().questions == [public]
    assert similar(reader=customer).questions == [mine, public]
    assert len(similar(reader=agent).questions) == 3


def test_what_a_reader_may_not_see_is_never_given_to_the_networks(scorer, monkeypatch):
    ask(TITLE, audience="private")
    draft = Draft.objects.create(id=uuid.uuid4(), text=TITLE)

    reranking.answer(str(draft.pk))

    draft.refresh_from_db()
    assert (draft.near, draft.found, scorer.judged) == ([], [], 0)


@pytest.mark.parametrize("by", ["worker", "no_worker"])
def test_a_merged_question_is_suggested_as_the_one_that_stands_for_it_once(by, request, admin):
    request.getfixturevalue(by)
    canonical, duplicate = ask("My blue lamp is out"), ask(TITLE)
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    assert similar().found == [Suggestion(canonical, found_as=duplicate)]


def test_one_found_by_its_own_words_is_found_as_itself(no_worker, admin):
    canonical, duplicate = ask(TITLE), ask("It has gone")
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    assert similar().found == [Suggestion(canonical, found_as=None)]


@pytest.mark.parametrize("by", ["worker", "no_worker"])
def test_suggestions_can_be_held_to_one_product(by, request):
    request.getfixturevalue(by)
    ask(TITLE)
    other = ask(TITLE, product=ProductFactory(slug="kettle"))

    assert similar(product_id=other.product_id).questions == [other]


def test_what_lies_below_the_floor_is_not_suggested(worker):
    ask("Where is the lamp of my aunt and uncle from the invoice of last March, please?")

    found = similar()

    assert (found.questions, found.by_meaning) == ([], True)


def test_no_more_are_suggested_than_wanted(worker):
    for _ in range(8):
        ask(TITLE)

    assert len(similar().questions) == 5
    assert len(similar(limit=7).questions) == 7


def test_whether_a_suggestion_was_answered_is_known(no_worker):
    AnswerFactory(question=ask(TITLE))

    (found,) = similar().questions

    assert found.answered


def test_no_network_is_asked_for_more_pairs_than_a_reader_waits_for(worker, scorer):
    for _ in range(30):
        ask(TITLE)

    similar()

    assert scorer.judged == reranking.RERANKED


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_comes_while_the_page_waits_is_used(scorer, monkeypatch, settings):
    settings.DEDUP_SUGGEST_SECONDS = 20
    known, threads = ask(TITLE), []

    def work(draft_id):
        tasks.suggest(draft_id)
        connection.close()

    def send(task, draft_id, **options):
        threads.append(threading.Thread(target=work, args=[draft_id]))
        threads[0].start()
        return True

    monkeypatch.setattr(outbox, "send", send)
    found = similar()
    threads[0].join()

    assert (found.questions, found.by_meaning) == ([known], True)


def test_a_draft_lies_in_a_table_that_no_log_and_no_backup_keeps():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relpersistence FROM pg_class WHERE relname = 'dedup_draft'")
        assert cursor.fetchone() == ("u",)


def test_a_title_is_enough(no_worker):
    assert similar(title="").questions == []
    assert Question.objects.count() == 0


def test_a_search_finds_nothing_where_nothing_is_meant_and_no_word_is_shared(
    worker, scorer, monkeypatch
):
    ask(TITLE)
    monkeypatch.setattr(reranking, "MEANT", 1.1)

    assert similar(title="Zzxxqq", limit=60, only_likely=False).found == []
    assert len(similar(title="lamp", limit=60, only_likely=False).found) == 1
