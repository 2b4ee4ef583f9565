"""Merge a thread and take it back: every page of every reader is what it was, to the letter.

But for the replies that were written in between, the histories and the tokens of forms.
`ASKONCE_ROUNDS` is the number of random threads (CI tries few; a release is preceded by 200).
"""

import os
import re
from datetime import timedelta
from difflib import unified_diff
from random import Random

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dedup import desk
from support import answering, merging, outbox, permissions
from support.models import Answer, Merge, Notification, Question, Subscription
from tests.conftest import _person
from tests.factories import (
    AnswerFactory,
    QuestionFactory,
    ReleaseFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
)

EXAMPLES = int(os.environ.get("ASKONCE_ROUNDS", "5"))
LONG_AGO = timezone.now() - timedelta(days=3, hours=5)
TOKENS = re.compile(r'name="csrfmiddlewaretoken" value="[^"]*"|"request_id":"[^"]*"')
HISTORY = re.compile(r'<ol class="plain history">.*?</ol>', re.DOTALL)


@pytest.fixture(autouse=True)
def by_words(monkeypatch):
    """No worker answers."""
    monkeypatch.setattr(outbox, "send", lambda *_args, **_kwargs: False)


class Portal:
    """A thread to be, its readers, and all that they see."""

    def __init__(self, random, *, duplicates, answers, votes, followers, is_private):
        self.random = random
        self.asker = UserFactory()
        self.people = UserFactory.create_batch(max(votes, followers, 3))
        self.admin = _person(permissions.ADMIN)
        self.agent = _person(permissions.AGENT)
        self.questions = [
            QuestionFactory(
                asked_by=self.asker if is_private else random.choice(self.people),
                audience="private" if is_private else "public",
                asked_at=LONG_AGO + timedelta(minutes=n),
                title=f"How do I dim lamp {n}?",
            )
            for n in range(1 + duplicates)
        ]
        self.is_private = is_private
        self._fill(answers, votes, followers)
        self.clients = {None: Client()}
        for person in (self.asker, self.people[0], self.people[1], self.agent, self.admin):
            self.clients[person] = Client()
            self.clients[person].force_login(person)

    def _fill(self, answers, votes, followers):
        """Answers and acceptances; people who vote and follow, some of them on several."""
        pick = self.random.choice
        for n in range(answers):
            at = LONG_AGO + timedelta(hours=1, minutes=n)
            answer = AnswerFactory(
                question=pick(self.questions), body=f"Answer {n}", written_at=at,
                written_by=self.agent,
            )  # fmt: skip
            if self.random.random() < 0.3:
                asker = answer.question.asked_by
                answering.accept_answer(question=answer.question, answer=answer, by=asker)
        for person in self.people[:votes]:
            for question in self._some():
                VoteFactory(question=question, by=person)
        for person in self.people[:followers]:
            for question in self._some():
                SubscriptionFactory(question=question, subscriber=person)

    def _some(self):
        return self.random.sample(self.questions, self.random.choice([1, 1, 2]))

    def pages(self):
        """Everything that anybody sees, by reader and address."""
        paths = ["/", "/?q=dim+lamp", "/mine/", "/manage/merges/"]
        paths += [question.get_absolute_url() for question in self.questions]
        paths += [f"/api/v1/questions/{question.pk}/" for question in self.questions]
        paths += [f"/api/v1/questions/{question.pk}/answers/" for question in self.questions]
        return {
            (reader and reader.username, path): self._seen(client.get(path))
            for reader, client in self.clients.items()
            for path in paths
        }

    @staticmethod
    def _seen(answer):
        shown = HISTORY.sub("", TOKENS.sub("", answer.content.decode()))
        return answer.status_code, answer.get("Location", ""), shown

    def merge_all(self):
        """Into each other in a random order, so that some go with what was merged into them."""
        edges, live = [], list(self.questions)
        while len(live) > 1:
            duplicate, canonical = self.random.sample(live, 2)
            edges.append(desk.merge(duplicate=duplicate, canonical=canonical, by=self.admin))
            live.remove(duplicate)
        return edges

    def reply(self):
        """To an address of before, as somebody does who had the page open."""
        writer = self.asker if self.is_private else self.random.choice(self.people)
        question = Question.objects.get(pk=self.random.choice(self.questions).pk)
        return answering.post_answer(question=question, body="In between.", by=writer)


def merge_reply_and_take_back(portal):
    """Return the pages before and after, where the replies stand, and the replies."""
    before = portal.pages()
    followed = set(Subscription.objects.values_list("pk", flat=True))
    replies = []
    edges = portal.merge_all()
    for edge in portal.random.sample(edges, len(edges)):  # in any order, not the last one first
        replies.append(portal.reply())
        desk.unmerge(merge=edge, by=portal.admin)
    stand = {reply.pk: reply.question_id for reply in replies}
    assert dict(Answer.objects.filter(pk__in=stand).values_list("pk", "question")) == stand
    for reply in replies:
        assert "In between." in portal.clients[portal.admin].get(
            reply.question.get_absolute_url()
        ).content.decode()  # fmt: skip
    Notification.objects.filter(answer__in=stand).delete()
    Answer.objects.filter(pk__in=stand).delete()
    Subscription.objects.exclude(pk__in=followed).delete()  # who replies follows from then on
    return before, portal.pages()


def differing(before, after):
    """Where pages differ, and in which lines."""
    return {
        address: [*unified_diff(before[address][2].splitlines(), after[address][2].splitlines())]
        for address in before
        if before[address] != after[address]
    }


@pytest.mark.django_db
def test_a_thread_of_three_duplicates_twelve_answers_forty_votes_and_thirty_followers_comes_back():
    ReleaseFactory(is_active=True)
    portal = Portal(
        Random(4), duplicates=3, answers=12, votes=40, followers=30, is_private=False
    )  # fmt: skip

    before, after = merge_reply_and_take_back(portal)

    assert differing(before, after) == {}
    assert not Merge.objects.in_force().exists()
    assert len(before) == 6 * (4 + 3 * 4)


@pytest.mark.django_db
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes a second: none shrinks
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32), duplicates=st.integers(1, 4), answers=st.integers(0, 6),
    votes=st.integers(0, 6), followers=st.integers(0, 6), is_private=st.booleans(),
)  # fmt: skip
def test_any_thread_comes_back(roles, seed, **shape):
    with transaction.atomic():
        portal = Portal(Random(seed), **shape)
        before, after = merge_reply_and_take_back(portal)

        assert differing(before, after) == {}
        assert merging.broken_pointers() == []
        transaction.set_rollback(True)
