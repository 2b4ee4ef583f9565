"""Thresholds of a release: moved by a person, and moved back.

Workers read them with each check. What is open is brought in line at once, but for what a person
has a hand on: pairs that somebody holds, put off, disputes, or wants a second opinion on stay where
they are until their next check. A check that began before a move may still open what lies below it;
its next check closes that again.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from dedup.models import Flag, FlagQuerySet, Release, Review, Score, ThresholdChange
from support import audit, merging, outbox
from support.models import User
from support.templatetags.texts import in_percent

Which = ThresholdChange.Which
COLUMN = {
    Which.FLAG: "threshold", Which.SURE: "sure_threshold", Which.SUGGEST: "suggestion_floor",
}  # fmt: skip
LOWEST, HIGHEST = 0.01, 1.0


class ThresholdRefused(Exception):
    """A threshold cannot be moved like this; the text says why, to a person."""


class OutOfOrder(ThresholdRefused):
    """What is shown would begin above what is flagged, or what is sure below it."""


class ThresholdMoved(ThresholdRefused):
    """Somebody else moved it meanwhile."""

    def __init__(self, now_at: float) -> None:
        super().__init__(
            _("Meanwhile somebody moved it to %(value)s. Look again, then move it.")
            % {"value": in_percent(now_at)}
        )
        self.now_at = now_at


class LaterChange(ThresholdRefused):
    """It was moved again since: the later move has to be taken back first."""


class AlreadyTakenBack(ThresholdRefused):
    """Somebody took it back already."""


@dataclass(frozen=True)
class Effects:
    """What a move of the flag threshold does at once."""

    withdrawn: int = 0  # open flags that are closed
    left: int = 0  # open flags below it that a person has a hand on
    put_back: int = 0  # questions that are checked again, since a pair of theirs now lies above


def value_of(release: Release, which: str) -> float:
    """Where a threshold stands."""
    return float(getattr(release, COLUMN[Which(which)]))


def effects(*, release: Release, which: str, after: float, now: datetime) -> Effects:
    """What moving it there would do at once."""
    if not _is_felt(release, which):
        return Effects()
    below = _open_below(release, after)
    to_close = _free(below, now).count()
    put_back = 0
    if after < release.threshold:
        put_back = _to_check_again(release, after).count()
    return Effects(to_close, below.count() - to_close, put_back)


@transaction.atomic
def move(
    *, release: Release, which: str, before: float, after: float, by: User, reason: str = "",
    now: datetime | None = None,
) -> ThresholdChange:  # fmt: skip
    """Move a threshold from where `by` saw it, and bring what is open in line.

    Raises ThresholdMoved where it stands elsewhere by now, OutOfOrder and ThresholdRefused where it
    cannot stand there.
    """
    now = now or timezone.now()
    release = _locked(release)
    if value_of(release, which) != before:
        raise ThresholdMoved(value_of(release, which))
    if after == before:
        raise ThresholdRefused(_("It stands there already."))
    done = _set(release, which, after, now)
    change = ThresholdChange.objects.create(
        release=release, which=which, before=before, after=after, by=by, at=now,
        reason=reason.strip()[:300], withdrawn=done.withdrawn, put_back=done.put_back,
    )  # fmt: skip
    _record("threshold_moved", change, done, by=by, now=now)
    return change


@transaction.atomic
def take_back(*, change: ThresholdChange, by: User, now: datetime | None = None) -> ThresholdChange:
    """Put a threshold back to where it stood before a change.

    Raises AlreadyTakenBack, LaterChange where it was moved again since, ThresholdMoved where it
    stands elsewhere for another reason, OutOfOrder where the other thresholds forbid it.
    """
    now = now or timezone.now()
    release = _locked(change.release)
    change = ThresholdChange.objects.select_related("release").get(pk=change.pk)
    if change.undone_at:
        raise AlreadyTakenBack(_("Somebody took it back already."))
    others = release.threshold_changes.standing().filter(which=change.which)
    if others.filter(Q(at__gt=change.at) | Q(at=change.at, pk__gt=change.pk)).exists():
        raise LaterChange(_("It was moved again since: take the later move back first."))
    if value_of(release, change.which) != change.after:
        raise ThresholdMoved(value_of(release, change.which))
    done = _set(release, change.which, change.before, now)
    change.undone_at, change.undone_by = now, by
    change.save(update_fields=["undone_at", "undone_by"])
    _record("threshold_moved_back", change, done, by=by, now=now)
    return change


def to_take_back(release: Release) -> set[int]:
    """Ids of the changes that can be taken back: the newest of each threshold that stands."""
    newest = release.threshold_changes.standing().order_by("which", "-at", "-pk")
    return set(newest.distinct("which").values_list("pk", flat=True))


def _locked(release: Release) -> Release:
    """The row as it is now. Checks that write their scores meanwhile do not wait for it."""
    return Release.objects.select_for_update(no_key=True).get(pk=release.pk)


def _set(release: Release, which: str, after: float, now: datetime) -> Effects:
    """Move it, and bring what is open in line: questions are held first, then flags, as
    everywhere."""
    before = release.threshold
    setattr(release, COLUMN[Which(which)], after)
    require_order(release)
    release.save(update_fields=[COLUMN[Which(which)]])
    if not _is_felt(release, which):
        return Effects()
    put_back = list(_to_check_again(release, after)) if after < before else []
    seen = _free(_open_below(release, after), now).values_list("pk", "older", "newer")
    pairs = {pk: ends for pk, *ends in seen}
    merging.lock_keys({*put_back, *(pk for ends in pairs.values() for pk in ends)})
    below = _open_below(release, after)
    closed = _free(below, now).filter(pk__in=pairs).order_by("pk").select_for_update(of=["self"])
    ids = [flag.pk for flag in closed]
    Flag.objects.filter(pk__in=ids).update(
        status=Flag.Status.WITHDRAWN, decided_at=now, claimed_by=None, claimed_until=None
    )
    left = below.count()
    number = outbox.put_all(put_back, is_background=True, now=now) if put_back else 0
    return Effects(len(ids), left, number)


def require_order(release: Release) -> None:
    """Raises OutOfOrder or ThresholdRefused where its thresholds make no sense together."""
    values = [release.suggestion_floor, release.threshold, release.sure_threshold]
    if not all(LOWEST <= value <= HIGHEST for value in values):
        raise ThresholdRefused(_("A threshold lies between 1 and 100 %."))
    if values != sorted(values):
        raise OutOfOrder(
            _("Suggestions begin at or below the flag threshold, and “sure” at or above it.")
        )


def _is_felt(release: Release, which: str) -> bool:
    """Whether flags depend on it."""
    return which == Which.FLAG and release.is_active


def _open_below(release: Release, threshold: float) -> FlagQuerySet:
    return Flag.objects.open().flagged().filter(release=release, probability__lt=threshold)


def _free(flags: FlagQuerySet, now: datetime) -> FlagQuerySet:
    """Those that no person has a hand on."""
    return flags.filter(disputed_at=None, unsure_by=None, snoozed_until=None).exclude(
        claimed_until__gt=now
    )


def _to_check_again(release: Release, threshold: float) -> QuerySet[Score, int]:
    """Ids of questions that have a pair at or above the threshold which waits for no reviewer and
    on which nobody has decided."""
    settled = Q(status=Flag.Status.OPEN, lane=Flag.Lane.FLAGGED) | Q(status__in=Review.DECISIONS)
    one_way = Flag.objects.filter(settled, older=OuterRef("older"), newer=OuterRef("newer"))
    other_way = Flag.objects.filter(settled, older=OuterRef("newer"), newer=OuterRef("older"))
    likely = Score.objects.filter(release=release, probability__gte=threshold)
    missed = likely.filter(~Exists(one_way), ~Exists(other_way))
    return missed.order_by("newer").values_list("newer", flat=True).distinct()


def _record(
    action: str, change: ThresholdChange, done: Effects, *, by: User, now: datetime
) -> None:
    audit.record(
        action, by=by, now=now, change=change.pk, release=change.release.name, which=change.which,
        before=change.before, after=change.after, reason_given=bool(change.reason),
        withdrawn=done.withdrawn, put_back=done.put_back,
    )  # fmt: skip
