"""The drills: what breaks in each, and what is promised meanwhile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Drill:
    """One fault; the function of that name in that module makes it."""

    number: int
    name: str
    module: str
    fault: str
    promise: str


DRILLS = [
    Drill(1, "child_killed", "worker_faults", "a worker's child killed every 2 s",
          "lost 0, doubled flags 0"),
    Drill(2, "worker_killed", "worker_faults", "a whole worker killed in mid-batch",
          "taken up again within the lease and 5 s"),
    Drill(3, "broker_killed", "broker_faults", "Redis killed 12 times, with nothing on disk",
          "bells are heard again within 15 s, nothing is stuck"),
    Drill(4, "broker_flushed", "broker_faults", "Redis forgets all with 500 waiting",
          "500 are checked"),
    Drill(5, "broker_hangs", "broker_faults", "Redis stands still for 60 s",
          "asking takes 1.5 s at first and then 200 ms (p99), no request fails"),
    Drill(6, "no_broker", "broker_faults", "Redis was never there",
          "every address answers, checks go on by sweep"),
    Drill(7, "poison", "worker_faults", "questions that kill the process that scores them",
          "in quarantine after three tries, all others are checked"),
    Drill(8, "scorer_hangs", "worker_faults", "questions whose scoring never ends",
          "killed by the hard limit, others go on"),
    Drill(9, "database_killed", "database_faults", "Postgres killed 5 times under load",
          "acknowledged lost 0; 503 with Retry-After, never 500"),
    Drill(10, "database_stopped", "database_faults", "Postgres stands still for 30 s",
          "503 within 10 s, no pile-up, nothing acknowledged lost"),
    Drill(10, "connections_taken", "database_faults", "all connections to Postgres are taken",
          "503 within 10 s, no pile-up, nothing acknowledged lost"),
    Drill(10, "disk_full", "database_faults", "the disk of Postgres is full",
          "503 within 10 s, no pile-up, nothing acknowledged lost"),
    Drill(11, "web_killed", "web_faults", "a web process killed between commit and bell",
          "swept within 10 s, and whoever repeats gets the one row"),
    Drill(12, "same_key", "web_faults", "the same Idempotency-Key 20 times at once",
          "one row, and the same answer for all"),
    Drill(13, "merge_storm", "merge_faults",
          "web processes and Postgres killed while eight admins merge", "0 bad rows"),
    Drill(14, "merge_crashed", "merge_faults",
          "a process killed at each statement of a merge, an unmerge and a restoration",
          "all or nothing"),
    Drill(15, "broken_releases", "release_faults",
          "releases truncated, flipped, with a pickle, incomplete, with weights that are no number",
          "refused, the old one goes on, 0 wrong flags"),
    Drill(16, "promoted_under_load", "release_faults", "promoted and rolled back under load",
          "every score names one release, and is that release's"),
    Drill(17, "rolling_restart", "web_faults", "all processes restarted in turn five times",
          "lost 0, 5xx 0, unanswered 0"),
    Drill(18, "beats", "beat_faults", "two beats at once, then none",
          "nothing doubled, nothing missed"),
    Drill(19, "restored", "backup_faults", "a backup, the database dropped, the backup restored",
          "all rows are equal by hash"),
    Drill(20, "kill_storm", "kill_storm",
          "five minutes of all of these at random", "lost 0, doubled 0, healthy in quarantine 0"),
]  # fmt: skip


def named(name: str) -> Drill:
    """Raises KeyError."""
    return {drill.name: drill for drill in DRILLS}[name]
