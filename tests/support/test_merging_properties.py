"""Whatever people do in whatever order: the forest stays flat, each thread holds what the model
says, and a merge that is taken back changed nothing that a reader sees.

`ASKONCE_ROUNDS` is the number of examples of 40 steps (CI runs few; a release is preceded by 200).
"""

import os
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from support import answering, asking, merging, thread
from support.models import Answer, Merge, Question, Subscription, Vote
from tests.factories import ProductFactory, UserFactory
from tests.support.merging_model import Edge, World

EXAMPLES = int(os.environ.get("ASKONCE_ROUNDS", "15"))
START = datetime(2026, 1, 1, tzinfo=UTC)

customers = st.integers(0, 2)
anybody = st.integers(0, 4)


def refusal_of(act, refusals=(merging.MergeRefused, answering.NotInThread)):
    """What `act` returned, and the name of what it raised."""
    try:
        with transaction.atomic():
            return act(), None
    except refusals as error:
        return None, type(error).__name__


class Merging(RuleBasedStateMachine):
    """People use the portal; each example is rolled back."""

    questions, answers, edges = Bundle("questions"), Bundle("answers"), Bundle("edges")
    people: list = []  # three customers, an agent, an admin
    product = None

    def __init__(self):
        super().__init__()
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.world, self.now, self.touched = World(), START, None
        self.agents = {person.pk for person in self.people[3:]}

    def teardown(self):
        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)

    def pass_time(self, **given):
        self.now += timedelta(**given or {"seconds": 1})
        return self.now

    def row(self, pk):
        return Question.objects.get(pk=pk)

    @initialize(target=questions)
    def begin(self):
        return multiple(*(self._ask(n % 2, "public") for n in range(3)))

    @rule(target=questions, who=customers, audience=st.sampled_from(["public", "private"]))
    def ask(self, who, audience):
        return self._ask(who, audience)

    def _ask(self, who, audience):
        asker, now = self.people[who], self.pass_time()
        asked = asking.submit_question(
            product=self.product, title=f"Question at {now}", body="", audience=audience,
            by=asker, now=now,
        )  # fmt: skip
        world = self.world
        world.askers[asked.pk], world.audiences[asked.pk] = asker.pk, audience
        world.versions[asked.pk] = 1
        world.followers.add((asked.pk, asker.pk))
        return asked.pk

    @rule(target=answers, q=questions, who=anybody)
    def answer(self, q, who):
        writer, self.touched = self.people[who], q
        if not self.world.may_read(writer.pk, q, self.agents):
            return multiple()
        said = answering.post_answer(question=self.row(q), body="So.", by=writer)
        self.world.answers[said.pk] = self.world.root(q)
        self.world.followers.add((self.world.root(q), writer.pk))
        return said.pk

    @rule(q=questions, who=anybody, wanted=st.booleans(), is_vote=st.booleans())
    def vote_or_follow(self, q, who, wanted, is_vote):
        person, self.touched = self.people[who], q
        act = answering.set_vote if is_vote else answering.set_following
        act(question=self.row(q), by=person, wanted=wanted)
        pairs = self.world.votes if is_vote else self.world.followers
        (self.world.join if wanted else self.world.leave)(pairs, q, person.pk)

    @rule(q=questions, a=answers)
    def accept(self, q, a):
        asker = next(p for p in self.people if p.pk == self.world.askers[q])
        given, self.touched = Answer.objects.get(pk=a), q
        _, refused = refusal_of(
            lambda: answering.accept_answer(question=self.row(q), answer=given, by=asker)
        )
        is_in_thread = self.world.root(self.world.answers[a]) == self.world.root(q)
        assert refused == (None if is_in_thread else "NotInThread")
        if is_in_thread:
            self.world.accepted[q] = a

    @rule(q=questions, flips=st.booleans())
    def edit(self, q, flips):
        now, world, self.touched = self.pass_time(), self.world, q
        audience = world.audiences[q]
        if flips:
            audience = "public" if audience == "private" else "private"
        _, refused = refusal_of(
            lambda: asking.edit_question(
                question=self.row(q), title=f"Edited at {now}", body="", audience=audience,
                by=self.people[0], seen=world.versions[q], now=now,
            )
        )  # fmt: skip
        assert refused == ("AudienceFixed" if flips and len(world.thread(q)) > 1 else None)
        if not refused:
            world.audiences[q], world.edited_at[q] = audience, now
            world.versions[q] += 1

    @rule(target=edges, duplicate=questions, canonical=questions)
    def merge(self, duplicate, canonical):
        return self._merge(duplicate, canonical) or multiple()

    def _merge(self, duplicate, canonical):
        repeated = self.world.repeated(duplicate, canonical)
        wanted = None if repeated else self.world.refusal(duplicate, canonical)
        now, self.touched = self.pass_time(), canonical
        edge, refused = refusal_of(
            lambda: merging.merge(
                duplicate=self.row(duplicate), canonical=self.row(canonical),
                by=self.people[4], now=now,
            )
        )  # fmt: skip
        assert refused == wanted
        event(f"merge: {refused or ('repeated' if repeated else 'done')}")
        if refused:
            return None
        assert repeated in (None, edge.pk)
        self.world.edges.setdefault(edge.pk, Edge(duplicate, canonical, now))
        return edge.pk

    @rule(e=edges, waits=st.booleans())
    def unmerge(self, e, waits):
        if waits:
            self.pass_time(hours=1)
        self._unmerge(e)

    def _unmerge(self, e):
        now, edge = self.pass_time(), self.world.edges[e]
        merging.unmerge(merge=Merge.objects.get(pk=e), by=self.people[4], now=now)
        edge.undone_at, self.touched = edge.undone_at or now, edge.duplicate

    @rule(one=questions, other=questions)
    def a_merge_that_is_taken_back_changes_nothing_that_a_reader_sees(self, one, other):
        if self.world.repeated(one, other):
            return
        before = self.seen(one, other)
        edge = self._merge(one, other)
        if edge:
            self._unmerge(edge)
            assert self.seen(one, other) == before

    def seen(self, *questions):
        """What both askers, a stranger, a visitor and an agent see of these threads."""
        readers = [*self.people[:4], AnonymousUser()]
        return [
            (reader.pk, pk, shown(self.row(pk), reader))
            for reader in readers
            for pk in sorted(set(questions))
            if reader.pk in self.agents or self.world.readers(pk) in {reader.pk, "everybody"}
        ]

    @invariant()
    def the_database_holds_what_the_model_says(self):
        world = self.world
        rows = Question.objects.filter(pk__in=world.askers).values_list("pk", "canonical_id")
        assert merging.broken_pointers() == []
        assert {pk: root or pk for pk, root in rows} == {pk: world.root(pk) for pk in world.askers}
        assert dict(Answer.objects.values_list("pk", "question_id")) == world.answers
        assert set(Vote.objects.values_list("question_id", "by_id")) == world.votes
        assert set(Subscription.objects.values_list("question_id", "subscriber_id")) == (
            world.followers
        )

    @invariant()
    def the_thread_that_was_touched_shows_the_models_totals(self):
        if self.touched is None:
            return
        world, root = self.world, self.world.root(self.touched)
        read = thread.read(self.row(root), self.people[3])
        members, self.touched = world.thread(root), None
        assert {q.pk for q in read.duplicates} == members - {root}
        assert {a.answer.pk for a in read.answers} == {
            a for a, q in world.answers.items() if q in members
        }
        assert read.votes == len(world.people(world.votes, root))
        assert read.followers == len(world.people(world.followers, root))
        for given in read.answers:
            accepting = {q for q in members if world.accepted.get(q) == given.answer.pk}
            assert given.is_solution == (root in accepting)
            assert {p.pk for p in given.accepted_by} == {world.askers[q] for q in accepting}


def shown(question, reader):
    """All that a reader sees of a question's page, as plain values."""
    if question.canonical_id:
        return ("redirect", question.canonical_id)
    read = thread.read(question, reader)
    answers = [
        (a.answer.pk, a.answer.body, a.origin, a.is_solution, a.votes, a.accepted_by)
        for a in read.answers
    ]
    return (
        question.title, [q.pk for q in read.duplicates], answers, read.votes, read.followers,
        read.has_my_vote, read.is_followed, read.is_solved,
    )  # fmt: skip


def run(machine, people):
    """Try out a machine; what `people` may do is read once."""
    machine.people, machine.product = people, ProductFactory()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.django_db
def test_whatever_people_do_threads_hold_what_the_model_says(customer, agent, admin):
    run(Merging, [customer, UserFactory(), UserFactory(), agent, admin])
