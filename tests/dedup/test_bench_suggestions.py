import json
import subprocess
import sys

import pytest

from dedup.management.bench.suggestions import STATES


@pytest.mark.slow
def test_suggestions_are_measured_with_a_worker_behind_a_backlog_and_without():
    ran = subprocess.run(
        [
            sys.executable, "manage.py", "bench", "suggestions", "--json", "--rows", "40",
            "--drafts", "4", "--backlog", "20",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    found = json.loads(ran.stdout.splitlines()[-1])
    assert list(found["sizes"]) == ["40"]
    for states in found["sizes"].values():
        assert tuple(states) == STATES
        assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in states.values())
        assert all(sum(row["ranked_by"].values()) == 4 for row in states.values())
        assert states[STATES[-1]]["ranked_by"] == {"words": 4}
