"""How much one person may do in a stretch of time: counted in Postgres, exact for all processes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import F
from django.utils.crypto import salted_hmac

from support.models import Usage

KEPT = timedelta(hours=2)  # longer than any stretch


@dataclass(frozen=True)
class Quota:
    """At most `most` in each stretch of `seconds`."""

    name: str
    most: int
    seconds: int


Use = tuple[Quota, str]  # one use of a quota, and by whom


def spend(quota: Quota, *, spender: str, now: datetime) -> int:
    """Count one use; return 0 within the quota, else the seconds until the next stretch."""
    begun_at = _begun_at(quota, now)
    with connection.cursor() as cursor:  # one statement: no two requests read the same count
        cursor.execute(
            """
            INSERT INTO support_usage AS kept (name, spender, begun_at, used)
            VALUES (%s, %s, %s, 1)
            ON CONFLICT (name, spender) DO UPDATE SET
                used = CASE WHEN kept.begun_at = EXCLUDED.begun_at THEN kept.used + 1 ELSE 1 END,
                begun_at = EXCLUDED.begun_at
            RETURNING used
            """,
            [quota.name, _hidden(quota, spender), begun_at],
        )
        (used,) = cursor.fetchone()
    return quota.seconds - int(now.timestamp() - begun_at.timestamp()) if used > quota.most else 0


def spend_each(uses: Iterable[Use], *, now: datetime) -> int:
    """Count these uses, up to the first that is over its quota; return as `spend` does."""
    for allowed, spender in uses:
        if seconds := spend(allowed, spender=spender, now=now):
            return seconds
    return 0


def give_back(quota: Quota, *, spender: str, now: datetime) -> None:
    """Take one use back, as if it had not been."""
    kept = Usage.objects.filter(name=quota.name, spender=_hidden(quota, spender), used__gt=0)
    kept.filter(begun_at=_begun_at(quota, now)).update(used=F("used") - 1)


def forget(quota: Quota, *, spender: str) -> None:
    """Begin anew for one of them."""
    Usage.objects.filter(name=quota.name, spender=_hidden(quota, spender)).delete()


def tidy(*, now: datetime) -> None:
    """Forget counts whose stretch is long over."""
    Usage.objects.filter(begun_at__lt=now - KEPT).delete()


def _begun_at(quota: Quota, now: datetime) -> datetime:
    seconds = int(now.timestamp())
    return datetime.fromtimestamp(seconds - seconds % quota.seconds, UTC)


def _hidden(quota: Quota, spender: str) -> str:
    """A keyed hash: the counts are no list of addresses and names."""
    return salted_hmac(quota.name, spender, algorithm="sha256").hexdigest()
