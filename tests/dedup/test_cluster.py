"""More than two questions that are one: seen together, decided in one transaction."""

from datetime import timedelta

import pytest
from django.utils import timezone

from dedup import cluster, desk, feedback, queue, review
from dedup.models import Flag, Review, Score
from dedup.texts import text_of
from support import merging
from support.models import AuditEntry, Merge, Question
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory, ReleaseFactory, UserFactory
from tests.support.test_merging_races import FEW, raced

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SOON = NOW + timedelta(seconds=20)
LATER = NOW + timedelta(hours=1)


class Case:
    """Questions under letters, oldest first, and the flags between them under pairs of letters."""

    def __init__(self, letters, **pairs):
        self.release = ReleaseFactory(sure_threshold=0.8)  # all of them likely
        asked = (NOW - timedelta(days=30 - place) for place in range(len(letters)))
        self.questions = {
            letter: QuestionFactory(title=f"Question {letter}?", asked_at=at)
            for letter, at in zip(letters, asked, strict=True)
        }
        self.flags = {pair: self.join(pair, probability) for pair, probability in pairs.items()}

    def join(self, pair, probability, **fields):
        older, newer = (self.questions[letter] for letter in pair)
        return FlagFactory(
            older=older, newer=newer, probability=probability, release=self.release, **fields
        )

    def __getitem__(self, letters):
        if len(letters) == 1:
            return Question.objects.get(pk=self.questions[letters].pk)
        return Flag.objects.get(pk=self.flags[letters].pk)

    def ids(self, letters):
        return {self.questions[letter].pk for letter in letters}

    def letters(self, questions):
        names = {question.pk: letter for letter, question in self.questions.items()}
        return "".join(names[getattr(one, "pk", one)] for one in questions)

    def around(self, pair, **given):
        return cluster.around(self[pair], now=NOW, **given)

    def decide(self, same, out="", *, by, stays=None, **given):
        flags = Flag.objects.open().filter(pk__in=[flag.pk for flag in self.flags.values()])
        return cluster.decide(
            flag_ids=[flag.pk for flag in flags],
            same=self.ids(same),
            out=self.ids(out),
            canonical=self.questions[stays].pk if stays else None,
            by=by,
            now=NOW,
            **given,
        )

    def threads(self):
        """Letters by the letter that stands for them."""
        names = {question.pk: letter for letter, question in self.questions.items()}
        roots = {letter: names[self[letter].root_id] for letter in self.questions}
        return {
            root: "".join(letter for letter in roots if roots[letter] == root)
            for root in sorted(set(roots.values()))
        }

    def statuses(self):
        return {pair: self[pair].status for pair in self.flags}


def everything():
    """What stands, without the traces of what was taken back."""
    return (
        list(Question.objects.order_by("pk").values_list("pk", "canonical", "version")),
        list(Flag.objects.exclude(status="withdrawn").order_by("pk").values_list("pk", "status")),
        list(Merge.objects.in_force().values_list()),
        list(Review.objects.standing().values_list()),
    )


@pytest.fixture
def six():
    """Five that are one, and F, which only E is a little like."""
    return Case("ABCDEF", AB=0.97, BC=0.94, AD=0.93, DE=0.9, CD=0.86, EF=0.82)


def more(flag):
    """As a card asks, which has read both threads."""
    ends = Question.objects.of_threads(*flag.question_ids)
    return cluster.more(flag, roots={one.pk: one.root_id for one in ends}, now=NOW)


class TestSeeing:
    def test_a_cluster_is_all_that_open_flags_hold_together_oldest_first(self, six):
        QuestionFactory()
        found = six.around("CD")

        assert six.letters(found.members) == "ABCDEF"
        assert [edge.probability for edge in found.edges] == [0.97, 0.94, 0.93, 0.9, 0.86, 0.82]
        assert more(six["CD"]) == 3  # A, B and E; F is a step further

    def test_two_questions_are_no_cluster(self):
        pair = Case("AB", AB=0.9)

        assert pair.around("AB") is None
        assert more(pair["AB"]) == 0

    def test_only_likely_flags_chain_together_and_the_one_that_is_looked_at(self):
        case = Case("ABCD", AB=0.7, BC=0.9, CD=0.7)

        assert case.letters(case.around("AB").members) == "ABC"
        assert case.letters(case.around("BC").members if case.around("BC") else "") == ""

    def test_the_weakest_edge_is_the_least_likely_without_which_it_falls_apart(self, six):
        found = six.around("AB")

        assert found.weakest == six["EF"]
        assert six.letters(found.ends(found.weakest)) == "EF"
        assert six.letters(found.loose) == "F"

    def test_an_edge_beside_likelier_ones_is_not_the_weakest(self):
        case = Case("ABCD", AB=0.97, BC=0.95, AC=0.81, CD=0.9)
        found = case.around("AB")

        assert found.weakest == case["CD"]
        assert found.likeliest(case["C"]) == case["BC"]

    def test_the_smaller_part_hangs_on_the_weakest_edge_even_with_the_oldest_in_it(self):
        case = Case("ABCD", AB=0.81, BC=0.95, CD=0.9)

        assert case.letters(case.around("CD").loose) == "A"

    def test_pairs_between_members_of_threads_join_the_threads(self, admin):
        case = Case("ABCDX", AB=0.9, DX=0.85)
        case.join("BC", 0.88)
        merging.merge(duplicate=case["X"], canonical=case["B"], by=admin, now=NOW)

        assert case.letters(case.around("AB").members) == "ABCD"

    def test_what_is_closed_asleep_asked_blindly_or_merged_holds_nothing(self, agent, admin):
        case = Case("ABCDEF", AB=0.9, BC=0.9, BD=0.9, BE=0.9, BF=0.9)
        review.dismiss(flag=case["BC"], by=agent)
        review.snooze(flag=case["BD"], by=agent, until=LATER, now=NOW)
        Flag.objects.filter(pk=case["BE"].pk).update(lane="sampled")
        merging.merge(duplicate=case["F"], canonical=case["B"], by=admin)

        assert case.around("AB") is None
        for pair in ("BC", "BD", "BE", "BF"):
            assert case.around(pair) is None
            assert more(case[pair]) == 0

    def test_a_snoozed_pair_is_back_with_its_time(self, agent):
        case = Case("ABC", AB=0.9, BC=0.9)
        review.snooze(flag=case["BC"], by=agent, until=LATER, now=NOW)

        assert cluster.around(case["AB"], now=LATER + timedelta(minutes=1))

    def test_a_mark_between_two_members_is_told(self, six, agent):
        mark = six.join("AF", 0.7)
        review.dismiss(flag=mark, by=agent, is_related=True, now=NOW)

        assert [six.letters(pair) for pair in six.around("AB").parted] == ["AF"]

    def test_a_merge_that_was_taken_back_is_told_as_a_mark(self, six, admin):
        edge = merging.merge(duplicate=six["F"], canonical=six["A"], by=admin, now=NOW)
        merging.unmerge(merge=edge, by=admin, now=LATER)

        assert [six.letters(pair) for pair in six.around("AB").parted] == ["AF"]

    def test_more_than_can_be_looked_at_are_cut_nearest_and_likeliest_first(self):
        hub = QuestionFactory(asked_at=NOW - timedelta(days=1))
        release = ReleaseFactory(sure_threshold=0.8)
        flags = [
            FlagFactory(
                older=hub, newer=QuestionFactory(), probability=0.99 - place / 100, release=release
            )
            for place in range(15)
        ]
        found = cluster.around(flags[14], now=NOW)

        assert len(found.members) == cluster.MOST_MEMBERS
        assert found.is_cut
        assert set(found.edges) == {*flags[:10], flags[14]}

    @pytest.mark.parametrize("size", [3, 11])
    def test_a_step_costs_the_same_however_many_it_reaches(self, size, django_assert_num_queries):
        hub = QuestionFactory()
        release = ReleaseFactory(sure_threshold=0.8)
        flags = FlagFactory.create_batch(size, older=hub, release=release)
        flag = Flag.objects.select_related("older", "newer").get(pk=flags[0].pk)

        with django_assert_num_queries(2 * 2 + 3):  # two steps; the members, two kinds of marks
            cluster.around(flag, now=NOW)
        with django_assert_num_queries(1):
            cluster.more(flag, roots={pk: pk for pk in flag.question_ids}, now=NOW)

    def test_the_oldest_answered_one_is_proposed_to_stay(self, six):
        members = six.around("AB").members
        assert cluster.proposed(members) == six["A"]

        AnswerFactory(question=six["D"])
        AnswerFactory(question=six["C"])
        assert cluster.proposed(members) == six["C"]

    def test_what_most_can_be_merged_into_is_proposed_before_an_answered_one(self, six):
        six.questions["A"].audience = "private"
        six.questions["A"].save()
        AnswerFactory(question=six["A"])

        assert cluster.proposed(six.around("AB").members) == six["B"]


class TestDeciding:
    def test_of_six_with_one_wrong_five_are_merged_one_is_let_out_and_all_is_taken_back(
        self, six, admin
    ):
        before = everything()
        said = six.decide("ABCDE", "F", by=admin)

        assert six.threads() == {"A": "ABCDE", "F": "F"}
        assert six.statuses() == dict.fromkeys(six.flags, "confirmed") | {"EF": "dismissed"}
        assert len({one.batch for one in said}) == 1
        assert merging.broken_pointers() == []
        assert list(queue.queue(admin)) == []

        review.undo(review=said[2], by=admin, now=SOON)
        assert everything() == before
        assert merging.broken_pointers() == []
        assert six.letters(six.around("AB").members) == "ABCDEF"

    def test_each_merge_has_the_likeliest_pair_that_joined_it_as_evidence(self, six, admin):
        six.decide("ABCDE", "F", by=admin)
        evidence = {
            six.letters([edge.duplicate_id]): edge.probability for edge in Merge.objects.all()
        }

        assert evidence == {"B": 0.97, "C": 0.94, "D": 0.93, "E": 0.9}

    def test_what_is_left_open_stays_open(self, six, admin):
        six.decide("ABCD", "F", by=admin)

        assert six.threads() == {"A": "ABCD", "E": "E", "F": "F"}
        assert (six["DE"].status, six["EF"].status) == ("open", "open")

    def test_the_one_that_is_chosen_stays(self, six, admin):
        six.decide("BCD", by=admin, stays="C")

        assert six.threads()["C"] == "BCD"

    def test_what_only_a_member_that_is_out_held_is_merged_and_taken_back_too(self, admin):
        case = Case("ABC", AB=0.95, BC=0.9)
        before = everything()
        said = case.decide("AC", "B", by=admin)
        bridge = Flag.objects.get(older=case["A"], newer=case["C"])

        assert case.threads() == {"A": "AC", "B": "B"}
        assert case.statuses() == {"AB": "dismissed", "BC": "dismissed"}
        assert (bridge.status, bridge.probability) == ("confirmed", 0.0)
        assert Merge.objects.get().probability is None  # no machine had said anything of them

        review.undo(review=said[-1], by=admin, now=SOON)
        assert everything() == before
        bridge.refresh_from_db()
        assert bridge.status == Flag.Status.WITHDRAWN  # nobody had asked for it

    def test_what_the_machine_said_of_a_pair_it_did_not_flag_is_its_evidence(self, admin):
        case = Case("ABC", AB=0.95, BC=0.9)
        older, newer = case["A"], case["C"]
        Score.objects.create(
            older=older, newer=newer, older_hash=text_of(older).hash, logit=0, cosine=0,
            newer_hash=text_of(newer).hash, probability=0.7, release=case.release,
        )  # fmt: skip

        case.decide("AC", "B", by=admin)
        assert Merge.objects.get().probability == 0.7

    def test_a_mark_that_is_overruled_stands_again_after_undo(self, admin):
        case = Case("ABC", AB=0.95, BC=0.9)
        mark = case.join("AC", 0.4)
        earlier = review.dismiss(flag=mark, by=admin, now=NOW - timedelta(days=1))
        said = case.decide("AC", "B", by=admin)
        mark.refresh_from_db()
        assert mark.status == "confirmed"

        review.undo(review=said[0], by=admin, now=SOON)
        mark.refresh_from_db()
        assert (mark.status, mark.decided_at) == ("dismissed", earlier.reviewed_at)
        assert list(Review.objects.standing()) == [earlier]

    def test_a_pair_that_nobody_flagged_can_be_overruled_like_others(self, admin):
        case = Case("ABC", AB=0.95, BC=0.9)
        said = case.decide("AC", "B", by=admin)
        bridge = next(one for one in said if one.verdict == "confirmed")
        review.overrule(review=bridge, verdict="related", by=admin, now=SOON)

        assert case.threads() == {letter: letter for letter in "ABC"}
        assert Flag.objects.get(pk=bridge.flag_id).status == "related"

    def test_a_slip_leaves_no_pair_that_nobody_flagged_in_the_queue(self, admin):
        case = Case("ABC", AB=0.95, BC=0.9)
        case.decide("AC", "B", by=admin)
        desk.unmerge(merge=Merge.objects.get(), by=admin, now=SOON)

        assert not Flag.objects.open().exists()
        assert Flag.objects.get(older=case["A"], newer=case["C"]).status == "withdrawn"

    def test_nothing_is_merged_across_audiences(self, six, admin):
        Question.objects.filter(pk=six["C"].pk).update(audience="private")
        six.decide("ABCDE", "F", by=admin)

        assert six.threads() == {"A": "ABDE", "C": "C", "F": "F"}
        assert (six["BC"].status, six["CD"].status) == ("confirmed", "confirmed")
        assert desk.linked(six["A"]) == [six["C"]]

    def test_what_an_agent_may_not_merge_waits_for_who_may(self, six, agent, admin):
        said = six.decide("ABCDE", "F", by=agent)

        assert six.threads() == {letter: letter for letter in "ABCDEF"}
        assert set(Flag.objects.to_merge()) == {
            six[pair] for pair in ("AB", "BC", "AD", "DE", "CD")
        }
        assert {one.merge for one in said} == {None}
        for _ in range(4):
            flag = Flag.objects.to_merge()[0]
            roots = (q.canonical or q for q in (flag.older, flag.newer))
            duplicate, canonical = merging.choose_direction(*roots)
            desk.merge(duplicate=duplicate, canonical=canonical, by=admin)
        assert list(Flag.objects.to_merge()) == []
        assert six.threads() == {"A": "ABCDE", "F": "F"}

    def test_what_waits_for_who_may_merge_waits_without_a_bridge_too(self, agent):
        case = Case("ABC", AB=0.95, BC=0.9)
        said = case.decide("AC", "B", by=agent)
        waiting = Flag.objects.to_merge().get()
        assert set(waiting.question_ids) == case.ids("AC")

        review.undo(review=said[0], by=agent, now=SOON)
        assert not Flag.objects.to_merge().exists()

    def test_threads_come_along_with_all_that_was_merged_into_them(self, six, admin):
        before = QuestionFactory()
        merging.merge(duplicate=before, canonical=six["E"], by=admin)
        said = six.decide("ABCDE", "F", by=admin)
        assert Question.objects.get(pk=before.pk).root_id == six["A"].pk

        review.undo(review=said[0], by=admin, now=SOON)
        assert Question.objects.get(pk=before.pk).root_id == six["E"].pk
        assert merging.broken_pointers() == []

    def test_a_member_taken_out_later_is_wanted_in_no_list_again(self, six, admin):
        six.decide("ABCDE", "F", by=admin)
        edge = Merge.objects.get(duplicate=six["C"])
        desk.unmerge(merge=edge, by=admin, now=LATER)

        assert six.threads() == {"A": "ABDE", "C": "C", "F": "F"}
        assert (six["BC"].status, six["CD"].status) == ("dismissed", "dismissed")
        assert list(Flag.objects.to_merge()) == []

    def test_the_audit_trail_has_each_pair_and_each_merge(self, six, admin):
        six.decide("ABCDE", "F", by=admin)
        counted = [
            AuditEntry.objects.filter(action=action, by=admin).count()
            for action in ("reviewed", "merged")
        ]

        assert counted == [6, 2 * 4]  # a merge stands in the histories of both its questions

    def test_each_pair_becomes_the_label_that_was_said(self, six, admin):
        said = six.decide("ABCDE", "F", by=admin)
        labels = [one.label for one in feedback.labels()]
        assert sorted(labels) == [False] + [True] * 5

        review.undo(review=said[0], by=admin, now=SOON)
        assert feedback.labels() == []


class TestRefusing:
    def test_one_decided_meanwhile_refuses_all(self, six, agent, admin):
        shown = [flag.pk for flag in six.flags.values()]
        review.dismiss(flag=six["EF"], by=agent)

        with pytest.raises(review.FlagClosed) as refused:
            cluster.decide(flag_ids=shown, same=six.ids("ABCDE"), by=admin)
        assert refused.value.last.by == agent
        assert Review.objects.filter(by=admin).count() == 0

    def test_a_text_edited_since_it_was_seen_refuses_all(self, six, admin):
        seen = {question.pk: question.version for question in six.questions.values()}
        Question.objects.filter(pk=six["C"].pk).update(version=2)

        with pytest.raises(merging.Stale):
            six.decide("ABCDE", "F", by=admin, seen=seen)
        assert not Review.objects.exists()

    def test_a_member_merged_meanwhile_refuses_all(self, six, admin):
        merging.merge(duplicate=six["D"], canonical=QuestionFactory(), by=admin)

        with pytest.raises(merging.NotLive):
            six.decide("ABCDE", by=admin)
        assert not Review.objects.exists()

    @pytest.mark.parametrize(
        ("same", "out", "stays"), [("A", "B", None), ("ABX", "", None), ("AB", "B", None),
                                   ("AB", "C", "C"), ("AB", "X", None)],
    )  # fmt: skip
    def test_what_does_not_fit_together_is_refused(self, six, admin, same, out, stays):
        six.questions["X"] = QuestionFactory()

        with pytest.raises(cluster.NotOfCluster):
            six.decide(same, out, by=admin, stays=stays)
        assert not Review.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_who_decide_a_cluster_at_once_one_wins_and_nothing_is_decided_twice(admin):
    other = UserFactory(is_superuser=True)
    for _ in range(FEW // 2):
        case = Case("ABCD", AB=0.97, BC=0.94, CD=0.82)
        results = raced(
            lambda case=case: case.decide("ABC", "D", by=admin),
            lambda case=case: case.decide("ABCD", by=other),
        )

        kinds = sorted(type(result).__name__ for result in results)
        assert kinds == ["FlagClosed", "list"], results
        assert case.threads() in ({"A": "ABC", "D": "D"}, {"A": "ABCD"})
        assert Review.objects.filter(flag__in=case.flags.values()).count() == 3
    assert merging.broken_pointers() == []


@pytest.mark.django_db(transaction=True)
def test_a_cluster_and_one_of_its_cards_decided_at_once_agree(admin, agent):
    for _ in range(FEW // 2):
        case = Case("ABC", AB=0.97, BC=0.94)
        results = raced(
            lambda case=case: case.decide("ABC", by=admin),
            lambda case=case: review.dismiss(flag=case["BC"], by=agent),
        )

        assert sum(isinstance(result, review.FlagClosed) for result in results) == 1, results
        assert case.threads() in ({"A": "ABC"}, {letter: letter for letter in "ABC"})
