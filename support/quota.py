"""How much one person may do in a stretch of time: counted in Postgres, exact for all processes."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection


@dataclass(frozen=True)
class Quota:
    """At most `most` in each stretch of `seconds`."""

    name: str
    most: int
    seconds: int


def spend(quota: Quota, *, spender: str, now: datetime) -> int:
    """Count one use; return 0 within the quota, else the seconds until the next stretch."""
    passed = int(now.timestamp()) % quota.seconds
    begun_at = datetime.fromtimestamp(int(now.timestamp()) - passed, UTC)
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
            [quota.name, spender, begun_at],
        )
        (used,) = cursor.fetchone()
    return quota.seconds - passed if used > quota.most else 0
