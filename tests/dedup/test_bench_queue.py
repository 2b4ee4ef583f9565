import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_desk_is_measured_with_few_and_with_more_open_flags():
    command = [sys.executable, "manage.py", "bench", "queue", "--json"]
    ran = subprocess.run(
        [*command, "--flags", "6", "12", "--cards", "3"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    found = json.loads(ran.stdout.splitlines()[-1])["sizes"]
    assert list(found) == ["6", "12"]
    for size in found.values():
        names = {"queue", "first card", "decide and next card", "merge", "unmerge"}
        assert set(size["milliseconds"]) == names
        assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in size["milliseconds"].values())
        assert size["decisions_per_second"] > 0
