"""The one way into the audit trail. Ids and plain values only: texts can be erased, these not."""

from datetime import datetime

from support.models import AuditEntry, Merge, Question, User


def record(
    action: str,
    *,
    by: User | None,
    now: datetime,
    question: Question | None = None,
    **details: object,
) -> None:
    """Write down that `by` did `action`."""
    AuditEntry.objects.create(action=action, by=by, at=now, question=question, details=details)


def record_merge(action: str, edge: Merge, *, by: User, now: datetime) -> None:
    """Write a merge or unmerge into the histories of both questions."""
    for question, role in ((edge.duplicate, "duplicate"), (edge.canonical, "canonical")):
        record(
            action,
            by=by,
            now=now,
            question=question,
            role=role,
            merge=edge.pk,
            duplicate=edge.duplicate_id,
            canonical=edge.canonical_id,
            probability=edge.probability,
            release=edge.release,
            reason_given=bool(edge.reason),
        )
