import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from support import asking, merging, outbox
from support.models import AuditEntry, OutboxEntry, Question, Subscription
from tests.factories import ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db


def ask(**given):
    defaults = {"title": "My lamp is dark", "body": "Since today.", "audience": "public"}
    return asking.submit_question(
        **{"product": ProductFactory(), "by": UserFactory()} | defaults | given
    )


def edit(question, **given):
    defaults = {"title": question.title, "body": question.body, "audience": question.audience}
    defaults |= {"by": question.asked_by, "seen": question.version}
    return asking.edit_question(question=question, **defaults | given)


def test_a_question_is_stored_with_its_check_and_its_asker_follows():
    question = ask(title="  My lamp is dark ")

    assert question.title == "My lamp is dark"
    assert OutboxEntry.objects.waiting().get().question == question
    assert Subscription.objects.get().subscriber == question.asked_by
    assert AuditEntry.objects.get(action="asked").question == question


def test_asking_takes_few_queries(django_assert_num_queries):
    product, asker = ProductFactory(), UserFactory()

    with django_assert_num_queries(9):
        ask(product=product, by=asker)


def test_the_bell_rings_only_after_the_commit(bells, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as callbacks:
        ask()
    assert bells == []

    callbacks[0]()

    assert bells == ["bell"]


@pytest.mark.parametrize(
    "given",
    [
        {"title": ""},
        {"title": " \u200b "},
        {"title": "x" * 201},
        {"title": "with \0"},
        {"body": "x" * 20_001},
        {"body": "with \0"},
        {"audience": "friends"},
    ],
)
def test_what_is_not_fit_to_be_stored_leaves_nothing(given):
    with pytest.raises(ValidationError):
        ask(**given)

    assert not Question.objects.exists()
    assert not OutboxEntry.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "table", ["support_subscription", "support_auditentry", "support_outboxentry"]
)
def test_a_question_without_all_that_belongs_to_it_is_not_stored(table):
    def broken(execute, sql, params, many, context):
        if sql.startswith(f'INSERT INTO "{table}"'):
            raise ConnectionError("the database went away")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(broken), pytest.raises(ConnectionError):
        ask()

    assert not Question.objects.exists()


def test_an_edit_renews_the_check_and_voids_the_claim_of_the_older_text():
    question = ask()
    (claim,) = outbox.claim(limit=1, now=timezone.now())

    changed = edit(question, title="My lamp flickers")

    assert (changed.title, changed.version) == ("My lamp flickers", 2)
    assert changed.edited_at
    entry = OutboxEntry.objects.waiting().get(question=question)
    assert entry.token is None
    with pytest.raises(outbox.ClaimLost), outbox.settling(claim):
        pass


def test_an_edit_of_a_stale_page_is_refused_and_changes_nothing():
    question = ask()
    edit(question, title="Said better")

    with pytest.raises(merging.Stale) as refused:
        edit(question, title="Said worse", seen=1)

    assert refused.value.details["changed"] == [question.pk]
    assert Question.objects.get().title == "Said better"


@pytest.mark.parametrize("role", ["duplicate", "canonical"])
def test_the_audience_of_a_merged_question_stays_while_its_text_may_change(role, admin):
    both = {"canonical": QuestionFactory(), "duplicate": QuestionFactory()}
    merging.merge(**both, by=admin)
    question = both[role]

    with pytest.raises(asking.AudienceFixed) as refused:
        edit(question, audience="private")

    assert refused.value.code == "merged"
    assert edit(question, title="Said better").title == "Said better"


def test_after_an_unmerge_the_audience_may_change_again(admin):
    one, other = QuestionFactory(), QuestionFactory()
    edge = merging.merge(duplicate=one, canonical=other, by=admin)
    merging.unmerge(merge=edge, by=admin)

    assert edit(one, audience="private").is_private
