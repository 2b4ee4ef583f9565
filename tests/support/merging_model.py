"""What merging means, in plain Python without a database: the properties are held against this."""

from dataclasses import dataclass, field

from support.merging import UNDO

PRIVATE = "private"


@dataclass
class Edge:
    duplicate: int
    canonical: int
    merged_at: object
    undone_at: object = None


@dataclass
class Case:
    """A flag: its status, the versions on which it was last opened or decided."""

    status: str = "open"
    versions: tuple = ()
    is_disputed: bool = False


@dataclass
class Said:
    """A review, with the merge that it made or took back."""

    pair: frozenset
    verdict: str
    by: int
    edge: int | None = None
    is_undone: bool = False
    at: object = None
    versions: tuple = ()
    batch: object = None
    is_bridge: bool = False  # nobody had asked for the pair before


@dataclass
class World:
    askers: dict = field(default_factory=dict)
    audiences: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    edited_at: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)  # answer -> question
    accepted: dict = field(default_factory=dict)  # question -> answer
    votes: set = field(default_factory=set)  # (question, person)
    followers: set = field(default_factory=set)  # (question, person)
    edges: dict = field(default_factory=dict)
    cases: dict = field(default_factory=dict)  # pair -> Case
    reviews: dict = field(default_factory=dict)

    def edge_above(self, question):
        open_edges = (pk for pk, e in self.edges.items() if e.undone_at is None)
        return next((pk for pk in open_edges if self.edges[pk].duplicate == question), None)

    def root(self, question):
        while (edge := self.edge_above(question)) is not None:
            question = self.edges[edge].canonical
        return question

    def thread(self, question):
        return {pk for pk in self.askers if self.root(pk) == self.root(question)}

    def people(self, pairs, question):
        return {person for where, person in pairs if where in self.thread(question)}

    def readers(self, question):
        return self.askers[question] if self.audiences[question] == PRIVATE else "everybody"

    def may_read(self, person, question, agents):
        return person in agents or self.readers(question) in {person, "everybody"}

    def join(self, pairs, question, person):
        if person not in self.people(pairs, question):
            pairs.add((question, person))

    def leave(self, pairs, question, person):
        pairs -= {(where, person) for where in self.thread(question)}

    def refusal(self, duplicate, canonical):
        """The name of what forbids a merge, or None."""
        if duplicate == canonical:
            return "SameQuestion"
        if any(self.edge_above(pk) is not None for pk in (duplicate, canonical)):
            return "NotLive"
        if self.readers(duplicate) != self.readers(canonical):
            return "AudienceDiffers"
        return None

    def repeated(self, duplicate, canonical):
        edge = self.edge_above(duplicate)
        return edge if edge is not None and self.edges[edge].canonical == canonical else None

    def versions_of(self, pair):
        return tuple(self.versions[pk] for pk in sorted(pair))

    def close(self, pair, status):
        case = self.cases[pair]
        case.status, case.versions = status, self.versions_of(pair)

    def was_parted(self, pair):
        """Merged once and taken back for good, and no edit since."""
        ends = [
            e.undone_at
            for e in self.edges.values()
            if {e.duplicate, e.canonical} == pair
            and e.undone_at
            and e.undone_at - e.merged_at > UNDO
        ]
        edits = [self.edited_at[pk] for pk in pair if pk in self.edited_at]
        return bool(ends) and all(edit <= max(ends) for edit in edits)

    def check(self, one, other):
        """A check of `one` found the pair likely, and nothing else."""
        pair = frozenset((one, other))
        self._flag(pair)
        for known, case in self.cases.items():
            read = dict(zip(sorted(known), case.versions, strict=True))
            is_old = known != pair and read.get(one, self.versions[one]) != self.versions[one]
            if is_old and case.status == "open" and not case.is_disputed:
                case.status = "withdrawn"

    def _flag(self, pair):
        if pair not in self.cases:
            if not self.was_parted(pair):
                self.cases[pair] = Case(versions=self.versions_of(pair))
            return
        case, versions = self.cases[pair], self.versions_of(pair)
        if case.status == "confirmed" or (case.status, case.versions) == ("dismissed", versions):
            return
        if case.status != "open":
            case.is_disputed = False
        case.status, case.versions = "open", versions

    def reviewed_unmerge(self, pk, now):
        """Take a merge back as the merge desk does: a mark, or nothing where it was a slip."""
        edge = self.edges[pk]
        if edge.undone_at:
            return
        edge.undone_at = now
        led = [
            said
            for said in self.reviews.values()
            if said.edge == pk and said.verdict == "confirmed" and not said.is_undone
        ]
        if now - edge.merged_at > UNDO:
            own = frozenset((edge.duplicate, edge.canonical))
            across = {self.root(pk) for pk in own}
            crossing = {
                pair
                for pair, case in self.cases.items()
                if case.status == "confirmed" and {self.root(pk) for pk in pair} == across
            }
            for pair in {said.pair for said in led} | {own} & set(self.cases) | crossing:
                self.close(pair, "dismissed")
            return
        for said in led:
            self.take_back(said)

    def take_back(self, said):
        """Undo what was said, but for its merge."""
        case = self.cases[said.pair]
        said.is_undone = True
        before = self.reviews.get(self.newest(said.pair)) if said.is_bridge else None
        if case.status != said.verdict:
            return
        case.status = "withdrawn" if said.is_bridge else "open"
        if before:
            case.status, case.versions = before.verdict, before.versions

    def together(self, pk):
        """What stands of those that were said in one go with this one, and itself."""
        batch = self.reviews[pk].batch
        return [pk] + [
            other
            for other, said in self.reviews.items()
            if other != pk and batch and said.batch == batch and not said.is_undone
        ]

    def newest(self, pair):
        standing = (pk for pk, s in self.reviews.items() if s.pair == pair and not s.is_undone)
        return max(standing, default=None)
