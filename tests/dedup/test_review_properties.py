"""The properties of merging once more, while checks flag pairs and people review them."""

from itertools import pairwise

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, multiple, rule

from dedup import cluster, desk, flagging, review
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
        said = Said(
            pair, made.verdict, self.people[who].pk, made.merge_id, at=now,
            versions=world.versions_of(pair),
        )  # fmt: skip
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

    @rule(
        target=reviews,
        drawn=st.lists(questions, min_size=3, max_size=5, unique=True),
        who=agents,
        place=st.none() | st.integers(0, 3),
    )
    def decide_together(self, drawn, who, place):
        for one, other in pairwise(drawn):
            self.check(one, other)
        world, now, is_admin = self.world, self.pass_time(), who == 4
        members = list(dict.fromkeys(world.root(q) for q in drawn))
        out = [] if place is None else members[place : place + 1]
        same = [q for q in members if q not in out]
        shown = {
            pair for pair, case in world.cases.items()
            if case.status == "open" and len({world.root(q) for q in pair} & set(members)) == 2
        }  # fmt: skip
        if len(same) < 2 or {world.root(q) for pair in shown for q in pair} != set(members):
            return multiple()
        flags = [Flag.objects.get(older__in=pair, newer__in=pair).pk for pair in shown]
        made = cluster.decide(
            flag_ids=flags, same=same, out=out, canonical=same[0], by=self.people[who], now=now
        )
        confirmed = {p for p in shown if {world.root(q) for q in p} <= set(same)}
        bridges = {frozenset(r.flag.question_ids) for r in made} - shown
        assert all(same[0] in pair and pair <= set(same) for pair in bridges)
        for one in made:
            self._note_together(one, bridges, now)
        assert {world.reviews[one.pk].pair for one in made} == shown | bridges
        for pair in shown | bridges:
            is_same = pair in confirmed | bridges
            assert world.cases[pair].status == ("confirmed" if is_same else "dismissed")
        for one in made:
            if one.merge_id:
                world.edges[one.merge_id] = Edge(one.merge.duplicate_id, same[0], now)
        fit = {q for q in same if world.readers(q) == world.readers(same[0])} if is_admin else set()
        merged = {q for q in same if world.root(q) == same[0]}
        assert merged == fit | {same[0]}
        event(f"together: {len(same)} same, {len(bridges)} bridges, {len(merged)} merged")
        self.touched = same[0]
        return multiple(*(one.pk for one in made))

    def _note_together(self, made, bridges, now):
        world, pair = self.world, frozenset(made.flag.question_ids)
        world.cases.setdefault(pair, Case())
        world.close(pair, made.verdict)
        world.reviews[made.pk] = Said(
            pair, made.verdict, made.by_id, made.merge_id, at=now,
            versions=world.versions_of(pair), batch=made.batch, is_bridge=pair in bridges,
        )  # fmt: skip

    @rule(r=reviews)
    def undo(self, r):
        world, said = self.world, self.world.reviews[r]
        now, edge = self.pass_time(), self.world.edges.get(said.edge)
        together = world.together(r)
        is_newest = all(world.newest(world.reviews[pk].pair) == pk for pk in together)
        wanted = None if is_newest else "NotYours"
        if not wanted and edge and said.verdict == "dismissed" and edge.undone_at:
            wanted = world.refusal(edge.duplicate, world.root(edge.canonical))
        by = next(p for p in self.people if p.pk == said.by)
        row = Flag.objects.get(older__in=said.pair, newer__in=said.pair).reviews.get(pk=r)
        _, refused = refusal_of(lambda: review.undo(review=row, by=by, now=now), REFUSALS)
        assert refused == wanted
        event(f"undo: {refused or 'done'}")
        for said in (world.reviews[pk] for pk in together if not refused):
            world.take_back(said)
            if edge := world.edges.get(said.edge):
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
