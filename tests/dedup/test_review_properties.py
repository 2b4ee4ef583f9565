"""The properties of merging once more, while checks flag pairs and people review them."""

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, rule

from dedup import desk, flagging, review
from dedup.decision import ScoredCandidate
from dedup.flagging import Findings
from dedup.models import Flag
from dedup.texts import text_of
from support import merging
from support.models import Merge
from tests.factories import ReleaseFactory, UserFactory
from tests.support.merging_model import Case, Edge, Said
from tests.support.test_merging_properties import Merging, refusal_of, run

REFUSALS = (merging.MergeRefused, review.ReviewRefused)
agents = st.integers(3, 4)  # the last is the admin


class Reviewing(Merging):
    """Checks, reviews, disputes and the merge desk, beside all that people do."""

    questions, edges, reviews = Bundle("questions"), Bundle("edges"), Bundle("reviews")
    release = None

    @rule(e=edges, waits=st.booleans())
    def unmerge_and_mark(self, e, waits):
        now = self.pass_time(hours=1) if waits else self.pass_time()
        desk.unmerge(merge=Merge.objects.get(pk=e), by=self.people[4], now=now)
        self.world.reviewed_unmerge(e, now)
        self.touched = self.world.edges[e].canonical

    @rule(one=questions, other=questions)
    def check(self, one, other):
        if self.world.root(one) == self.world.root(other):
            return
        text, near = text_of(self.row(one)), text_of(self.row(other))
        likely = ScoredCandidate(other, self.world.root(other), near.hash, 3.0, 0.9, 0.95)
        found = Findings(text, {other: near}, [likely], [likely], self.release, {})
        flagging.write(found, now=self.pass_time())
        self.world.check(one, other)

    @rule(target=reviews, one=questions, other=questions, who=agents, confirms=st.booleans())
    def decide(self, one, other, who, confirms):
        pair, world = frozenset((one, other)), self.world
        if pair not in world.cases:
            return multiple()
        flag, now = Flag.objects.get(older__in=pair, newer__in=pair), self.pass_time()
        act = self._confirm if confirms else self._dismiss
        wanted = None if world.cases[pair].status == "open" else "FlagClosed"
        made, refused = refusal_of(lambda: act(flag, one, self.people[who], now), REFUSALS)
        assert refused == wanted
        event(f"{'confirm' if confirms else 'dismiss'}: {refused or 'done'}")
        if refused:
            return multiple()
        said = Said(pair, made.verdict, self.people[who].pk, made.merge_id, at=now)
        self._note_decision(said, other, one)
        world.reviews[made.pk] = said
        return made.pk

    def _confirm(self, flag, stays, by, now):
        return review.confirm(flag=flag, canonical=self.row(stays), by=by, now=now)

    def _dismiss(self, flag, stays, by, now):
        return review.dismiss(flag=flag, by=by, now=now)

    def _note_decision(self, said, goes, stays):
        """What the decision does to the threads; `said.edge` is what the database names."""
        world, is_admin = self.world, said.by == self.people[4].pk
        goes_root, stays_root = world.root(goes), world.root(stays)
        disputed = world.cases[said.pair].is_disputed and (
            world.repeated(goes, stays) or world.repeated(stays, goes)
        )
        world.close(said.pair, said.verdict)
        if said.verdict == "confirmed":
            merges = is_admin and not world.refusal(goes_root, stays_root)
            assert (said.edge is not None) == merges
            if merges:
                world.edges[said.edge] = Edge(goes_root, stays_root, said.at)
        else:
            assert said.edge == ((disputed or None) if is_admin else None)
            if said.edge:
                world.edges[said.edge].undone_at = said.at
        self.touched = stays

    @rule(r=reviews)
    def undo(self, r):
        world, said = self.world, self.world.reviews[r]
        now, edge = self.pass_time(), self.world.edges.get(said.edge)
        wanted = None if world.newest(said.pair) == r else "NotYours"
        if not wanted and edge and said.verdict == "dismissed" and edge.undone_at:
            wanted = world.refusal(edge.duplicate, world.root(edge.canonical))
        by = next(p for p in self.people if p.pk == said.by)
        row = Flag.objects.get(older__in=said.pair, newer__in=said.pair).reviews.get(pk=r)
        _, refused = refusal_of(lambda: review.undo(review=row, by=by, now=now), REFUSALS)
        assert refused == wanted
        event(f"undo: {refused or 'done'}")
        if not refused:
            said.is_undone, world.cases[said.pair].status = True, "open"
            if edge:
                is_confirmed = said.verdict == "confirmed"
                edge.undone_at = (edge.undone_at or now) if is_confirmed else None

    @rule(q=questions)
    def dispute(self, q):
        edge, now = self.world.edge_above(q), self.pass_time()
        asker = next(p for p in self.people if p.pk == self.world.askers[q])
        _, refused = refusal_of(
            lambda: desk.dispute(question=self.row(q), by=asker, reason="Mine differs", now=now),
            REFUSALS,
        )
        assert refused == ("NotMerged" if edge is None else None)
        if edge is not None:
            pair = frozenset((q, self.world.edges[edge].canonical))
            self.world.cases[pair] = Case("open", self.world.versions_of(pair), True)

    @invariant()
    def each_pair_has_the_flag_that_the_model_says(self):
        flags = Flag.objects.values_list("older_id", "newer_id", "status")
        assert {frozenset(pair): status for *pair, status in flags} == {
            pair: case.status for pair, case in self.world.cases.items()
        }


@pytest.mark.django_db
def test_whatever_reviewers_do_flags_and_threads_hold_what_the_model_says(customer, agent, admin):
    Reviewing.release = ReleaseFactory(is_active=True)
    run(Reviewing, [customer, UserFactory(), UserFactory(), agent, admin])
