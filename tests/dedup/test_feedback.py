from datetime import timedelta

import pytest
from django.utils import timezone

from dedup import desk, feedback, review
from dedup.ml.pairs import Pair
from dedup.texts import text_of
from support import asking
from tests.factories import FlagFactory

pytestmark = pytest.mark.django_db


def texts(flag):
    return Pair(text_of(flag.older).input, text_of(flag.newer).input)


def told():
    """Pairs with their labels."""
    return [(one.pair, one.label) for one in feedback.labels()]


def dismiss(flag, by):
    return review.dismiss(flag=flag, by=by, now=timezone.now())


def test_each_reviewed_pair_is_a_label_once_by_its_last_word(agent):
    first, second, untouched = FlagFactory(), FlagFactory(), FlagFactory()
    dismiss(second, agent)
    review.confirm(flag=first, canonical=first.older, by=agent)

    assert told() == [(texts(second), 0.0), (texts(first), 1.0)]
    assert texts(untouched) not in [one.pair for one in feedback.labels()]


def test_a_verdict_that_was_taken_back_is_no_label(agent):
    flag = FlagFactory()
    review.undo(review=dismiss(flag, agent), by=agent)

    assert feedback.labels() == []


def test_what_was_said_of_a_text_that_changed_since_is_no_label(agent):
    flag = FlagFactory()
    dismiss(flag, agent)

    asking.edit_question(
        question=flag.newer, title="Said otherwise", body="", audience="public",
        by=flag.newer.asked_by, seen=flag.newer.version,
    )  # fmt: skip

    assert feedback.labels() == []


def test_a_pair_whose_merge_was_taken_back_later_was_different(admin):
    flag = FlagFactory()
    long_ago = timezone.now() - timedelta(hours=1)
    said = review.confirm(flag=flag, canonical=flag.older, by=admin, now=long_ago)

    desk.unmerge(merge=said.merge, by=admin)

    assert told() == [(texts(flag), 0.0)]
