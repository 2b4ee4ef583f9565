import json
from dataclasses import fields
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from dedup import desk, feedback, review
from dedup.ml.pairs import Pair
from dedup.models import BlindItem, Flag, Score
from dedup.texts import text_of
from support import asking, erasing, merging
from tests.factories import (
    FlagFactory,
    ProductFactory,
    QuestionFactory,
    ReleaseFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

NOW = timezone.now()
AN_HOUR_AGO = NOW - timedelta(hours=1)


def texts(flag):
    return Pair(text_of(flag.older).input, text_of(flag.newer).input)


def told():
    """Pairs with their labels."""
    return [(one.pair, one.label) for one in feedback.labels()]


def only():
    (label,) = feedback.labels()
    return label


def dismiss(flag, by, now=None):
    flag.refresh_from_db()
    return review.dismiss(flag=flag, by=by, now=now or timezone.now())


def confirm(flag, by, now=None):
    flag.refresh_from_db()
    return review.confirm(flag=flag, canonical=flag.older, by=by, now=now or timezone.now())


def second_opinion(flag, verdict, by=None, at=None):
    flag.refresh_from_db()
    moment = at or timezone.now()
    return BlindItem.objects.create(
        flag=flag, by=by or UserFactory(), asked_share=0.01, expected=flag.status,
        drawn_at=moment, verdict=verdict, decided_at=moment,
    )  # fmt: skip


def edit(question):
    asking.edit_question(
        question=question, title="Said otherwise", body="", audience="public",
        by=question.asked_by, seen=question.version,
    )  # fmt: skip


def test_each_reviewed_pair_is_a_label_once_by_its_last_word(agent):
    first, second, untouched = FlagFactory(), FlagFactory(), FlagFactory()
    dismiss(second, agent)
    confirm(first, agent)

    assert told() == [(texts(second), 0.0), (texts(first), 1.0)]
    assert texts(untouched) not in [one.pair for one in feedback.labels()]


def test_a_verdict_that_was_taken_back_is_no_label(agent):
    flag = FlagFactory()
    review.undo(review=dismiss(flag, agent), by=agent)

    assert feedback.labels() == []


@pytest.mark.parametrize("end", ["older", "newer"])
def test_what_was_said_of_a_text_that_changed_since_is_no_label(agent, end):
    flag = FlagFactory()
    dismiss(flag, agent)
    edit(getattr(flag, end))

    assert feedback.labels() == []


def test_a_pair_whose_merge_was_taken_back_later_was_different(admin):
    flag = FlagFactory()
    said = confirm(flag, admin, AN_HOUR_AGO)

    desk.unmerge(merge=said.merge, by=admin)

    assert told() == [(texts(flag), 0.0)]


def test_who_takes_a_merge_back_overrules_who_confirmed_it(agent, admin):
    flag = FlagFactory()
    confirm(flag, agent, AN_HOUR_AGO)
    edge = desk.merge(duplicate=flag.newer, canonical=flag.older, by=admin, now=AN_HOUR_AGO)
    desk.unmerge(merge=edge, by=admin)

    assert (only().label, only().weight, only().by) == (0.0, 1.0, (admin.pk,))


# Merges made by hand


def test_a_merge_made_by_hand_says_duplicate_but_was_never_asked_about(admin):
    one, other = QuestionFactory(), QuestionFactory()
    edge = desk.merge(duplicate=other, canonical=one, by=admin)

    assert (only().older_id, only().newer_id, only().label) == (one.pk, other.pk, 1.0)
    assert (only().lane, only().share, only().release, only().probability) == (
        "merged", None, "", None,
    )  # fmt: skip
    assert (only().by, only().said_at) == ((admin.pk,), edge.merged_at)


def test_a_merge_by_hand_of_a_flagged_pair_is_the_label_of_its_flag(admin):
    flag = FlagFactory(lane=Flag.Lane.SAMPLED, asked_share=0.02)
    desk.merge(duplicate=flag.newer, canonical=flag.older, by=admin)

    assert (only().label, only().lane, only().share) == (1.0, "sampled", 0.02)


def test_a_merge_by_hand_that_was_taken_back_later_says_not_a_duplicate(admin):
    edge = desk.merge(
        duplicate=QuestionFactory(), canonical=QuestionFactory(), by=admin, now=AN_HOUR_AGO
    )
    desk.unmerge(merge=edge, by=admin, now=NOW)

    assert (only().label, only().lane, only().said_at) == (0.0, "unmerged", NOW)


def test_a_merge_taken_back_at_once_says_nothing(admin):
    edge = desk.merge(duplicate=QuestionFactory(), canonical=QuestionFactory(), by=admin, now=NOW)
    desk.unmerge(merge=edge, by=admin, now=NOW + timedelta(seconds=20))

    assert feedback.labels() == []


def test_a_merge_says_nothing_of_a_text_that_was_edited_or_erased_since(admin):
    questions = QuestionFactory.create_batch(4)
    for one, other in (questions[:2], questions[2:]):
        desk.merge(duplicate=other, canonical=one, by=admin, now=AN_HOUR_AGO)
    assert len(feedback.labels()) == 2

    edit(questions[0])
    erasing.erase(person=questions[3].asked_by, by=None)
    assert feedback.labels() == []


def test_a_merge_of_whole_threads_says_nothing_of_the_two_that_stand_for_them(admin, agent):
    head, member, lone = QuestionFactory.create_batch(3)
    desk.merge(duplicate=member, canonical=head, by=admin, now=AN_HOUR_AGO)
    flag = FlagFactory(older=member, newer=lone)
    review.confirm(flag=flag, canonical=head, by=admin)

    pairs = {(one.older_id, one.newer_id) for one in feedback.labels()}
    assert pairs == {(head.pk, member.pk), (member.pk, lone.pk)}


# Disputes


def disputed(admin, **given):
    flag = FlagFactory(**given)
    confirm(flag, admin, AN_HOUR_AGO)
    return desk.dispute(question=flag.newer, by=flag.newer.asked_by, reason="Mine is red.")


def test_an_open_dispute_takes_its_pair_out_until_an_agent_decides(admin, agent):
    flag = disputed(admin)
    assert feedback.labels() == []

    dismiss(flag, agent)
    assert (only().label, only().weight, only().by) == (0.0, 1.0, (agent.pk,))


def test_a_disputed_merge_that_stays_is_still_a_duplicate(admin, agent):
    confirm(disputed(admin), agent)

    assert only().label == 1.0


def test_an_open_dispute_of_a_merge_made_by_hand_takes_it_out_too(admin, agent):
    ReleaseFactory(is_active=True)
    edge = desk.merge(duplicate=QuestionFactory(), canonical=QuestionFactory(), by=admin)
    flag = desk.dispute(question=edge.duplicate, by=edge.duplicate.asked_by, reason="No.")
    assert feedback.labels() == []

    dismiss(flag, agent)
    assert (only().label, only().lane, only().share) == (0.0, "disputed", None)


def test_a_dispute_leaves_a_drawn_pair_what_it_was_for_measuring(admin, agent):
    flag = disputed(admin, lane=Flag.Lane.SAMPLED, asked_share=0.02)
    dismiss(flag, agent)

    assert (only().lane, only().share) == ("sampled", 0.02)


# Second opinions


@pytest.mark.parametrize(
    ("opinions", "expected"),
    [
        ([], (1.0, 1.0)),
        (["confirmed"], (1.0, 1.0)),
        (["confirmed", "dismissed"], (1.0, 2 / 3)),
        (["related", "dismissed"], (0.0, 2 / 3)),
        (["skipped", "unsure", ""], (1.0, 1.0)),
    ],
)
def test_the_label_is_what_most_say_and_its_weight_their_share(agent, opinions, expected):
    flag = FlagFactory()
    confirm(flag, agent)
    for verdict in opinions:
        item = second_opinion(flag, verdict or "skipped")
        if not verdict:
            BlindItem.objects.filter(pk=item.pk).update(verdict="", decided_at=None)

    assert (only().label, only().weight) == expected


def test_where_as_many_say_the_one_as_the_other_the_pair_is_out(agent):
    flag = FlagFactory()
    confirm(flag, agent)
    second_opinion(flag, "dismissed")

    assert feedback.labels() == []


def test_each_person_counts_once_by_their_last_word(agent, admin):
    flag = FlagFactory()
    said = dismiss(flag, admin, AN_HOUR_AGO)
    second_opinion(flag, "confirmed", by=agent, at=AN_HOUR_AGO + timedelta(minutes=1))
    review.overrule(review=said, verdict="dismissed", by=agent)

    assert (only().label, only().weight, only().by) == (0.0, 1.0, (agent.pk,))


def test_a_second_opinion_on_a_text_edited_since_does_not_count(agent):
    flag = FlagFactory()
    dismiss(flag, agent)
    second_opinion(flag, "confirmed")
    edit(flag.newer)
    Flag.objects.update(status="open")
    dismiss(Flag.objects.select_related("older", "newer").get(), agent)

    assert (only().label, only().weight) == (0.0, 1.0)


def test_an_opinion_on_a_pair_that_is_open_again_waits_for_the_decision(agent):
    flag = FlagFactory()
    said = confirm(flag, agent)
    second_opinion(flag, "confirmed")
    review.undo(review=said, by=agent)

    assert feedback.labels() == []


# What a label tells


def test_a_label_tells_what_the_release_had_said_of_these_texts(agent):
    flag = FlagFactory(probability=0.83)
    dismiss(flag, agent)
    given = {
        "older": flag.older, "newer": flag.newer, "release": flag.release, "logit": 1.5,
        "cosine": 0.7, "probability": 0.83, "older_hash": text_of(flag.older).hash,
    }  # fmt: skip
    score = Score.objects.create(**given, newer_hash=text_of(flag.newer).hash)
    told = only()
    assert (told.release, told.probability, told.cosine, told.logit) == (
        flag.release.name, 0.83, 0.7, 1.5,
    )  # fmt: skip

    Score.objects.filter(pk=score.pk).update(newer_hash="of another text")
    assert (only().cosine, only().logit) == (None, None)


@pytest.mark.parametrize(
    ("lane", "share", "expected"),
    [
        ("flagged", 1.0, ("flagged", 1.0)),
        ("sampled", 0.1, ("sampled", 0.1)),
        ("flagged", 0.1, ("sampled", 0.1)),  # sent back: all see its score since
        ("chosen", None, ("chosen", None)),
        ("flagged", None, ("unmerged", None)),  # people asked, not the machine
    ],
)
def test_a_label_tells_how_its_pair_came_to_be_asked_about(agent, lane, share, expected):
    dismiss(FlagFactory(lane=lane, asked_share=share), agent)

    assert (only().lane, only().share) == expected


def test_a_pair_that_is_sent_back_stays_in_the_sample(agent, admin):
    flag = FlagFactory(lane=Flag.Lane.SAMPLED, asked_share=0.02)
    confirm(flag, agent)
    review.send_back(flag=flag, by=admin, note="Another lamp.")
    dismiss(flag, agent)

    assert (only().lane, only().share) == ("sampled", 0.02)


def test_segments_are_of_the_newer_question(agent):
    older = QuestionFactory(language="en")
    asker = UserFactory(is_guest=True, password="!", date_joined=NOW - timedelta(days=40))
    newer = QuestionFactory(
        product=ProductFactory(slug="door"), language="de", body="word " * 90, asked_by=asker
    )
    dismiss(FlagFactory(older=older, newer=newer), agent)

    assert only().segments == {
        "product": "door", "language": "de", "length": "long", "account": "old", "asker": "guest",
    }  # fmt: skip


def test_what_was_said_by_a_time_is_what_was_known_then(agent, admin):
    early, late = FlagFactory(), FlagFactory()
    dismiss(early, agent, AN_HOUR_AGO)
    second_opinion(early, "dismissed", by=admin)
    dismiss(late, agent)

    (label,) = feedback.labels(until=AN_HOUR_AGO)
    assert (label.pair, label.by) == (texts(early), (agent.pk,))


@pytest.mark.parametrize("size", [1, 12])
def test_labels_are_read_in_as_many_queries_however_many_there_are(
    agent, admin, size, django_assert_num_queries
):
    for flag in FlagFactory.create_batch(size):
        confirm(flag, agent)
        second_opinion(flag, "confirmed")
        desk.merge(duplicate=QuestionFactory(), canonical=QuestionFactory(), by=admin)

    with django_assert_num_queries(6):
        assert len(feedback.labels()) == 2 * size


# Sides of the split


def test_a_side_is_the_same_for_ever_and_as_large_as_it_is_to_be():
    sides = [feedback.part_of(pk) for pk in range(20_000)]

    assert [feedback.part_of(pk) for pk in (1, 2, 3, 4, 5)] == sides[1:6]
    for name, share in feedback.PARTS:
        assert sides.count(name) / len(sides) == pytest.approx(share, abs=0.01)


def test_no_question_stands_on_two_sides(agent):
    questions = QuestionFactory.create_batch(40)
    release = ReleaseFactory()
    for step in (1, 7, 11):
        for one, other in zip(questions, questions[step:], strict=False):
            dismiss(FlagFactory(older=one, newer=other, release=release), agent)
    sides = {}
    for label in feedback.labels():
        for pk in (label.older_id, label.newer_id):
            sides.setdefault(pk, set()).add(label.part)

    assert len(feedback.labels()) > 80
    assert all(len(names - {""}) == 1 for names in sides.values())


def test_duplicates_stand_on_one_side_however_many_they_are():
    groups = feedback.Groups()
    for pk in range(1, 200):
        groups.join(pk, pk + 1, is_same=True)

    assert len({groups.name_of(pk) for pk in range(1, 201)}) == 1


def test_pairs_that_are_no_duplicates_do_not_chain_everything_together():
    groups = feedback.Groups()
    for pk in range(1, 1000):
        groups.join(pk, pk + 1, is_same=False)
    names = [groups.name_of(pk) for pk in range(1, 1001)]

    assert max(names.count(name) for name in set(names)) <= feedback.LARGEST_GROUP


def test_a_merge_that_is_no_label_keeps_its_questions_on_one_side(admin, agent, monkeypatch):
    monkeypatch.setattr(feedback, "LARGEST_GROUP", 1)  # dismissed pairs join nothing
    one, other, third, fourth = QuestionFactory.create_batch(4)
    merging.merge(duplicate=other, canonical=one, by=admin, now=AN_HOUR_AGO)
    edit(other)  # no label any more
    release = ReleaseFactory()
    for end in (one, other):
        for beside in (third, fourth):
            dismiss(FlagFactory(older=end, newer=beside, release=release), agent)

    parts = {}
    for label in feedback.labels():
        parts.setdefault(label.newer_id, set()).add(label.part)
    assert len(feedback.labels()) == 4
    assert all(len(each) == 1 for each in parts.values())


# The command


def exported(*given):
    out = StringIO()
    call_command("export_labels", *given, stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_labels_are_exported_with_all_their_fields(agent):
    flag = FlagFactory()
    dismiss(flag, agent)
    (row,) = exported()

    assert set(row) == {field.name for field in fields(feedback.Label)}
    assert row["pair"] == {"older": texts(flag).older, "newer": texts(flag).newer}
    assert (row["label"], row["by"], row["said_at"]) == (
        0.0, [agent.pk], only().said_at.isoformat(),
    )  # fmt: skip
    assert agent.username not in json.dumps(row)


def test_labels_are_exported_to_a_file_from_a_time_on(agent, tmp_path):
    dismiss(FlagFactory(), agent, AN_HOUR_AGO)
    late = FlagFactory()
    dismiss(late, agent, NOW)
    file = tmp_path / "labels.jsonl"

    assert exported(str(file), "--since", NOW.isoformat()) == []
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["older_id"] == late.older_id


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01"])
def test_what_is_no_time_is_refused(db, given):
    with pytest.raises(CommandError, match="is no time"):
        exported("--since", given)


def test_a_file_that_cannot_be_written_is_said_to_be_so(db, tmp_path):
    with pytest.raises(CommandError, match="cannot be written"):
        exported(str(tmp_path / "nowhere" / "labels.jsonl"))
