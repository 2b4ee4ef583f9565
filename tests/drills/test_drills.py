"""The short form of every drill; the long form is `python -m tests.drills all`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drills.table import DRILLS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 2400  # all together; it takes a quarter of that where nothing else runs
NEVER = ("lost", "doubled", "5xx", "healthy_quarantined")  # whatever else the machine does


@pytest.fixture(scope="module")
def drilled(tmp_path_factory):
    """What each drill found, by its name. What only took too long, beside the other tests on a busy
    machine, is tried once more by itself."""
    logs = tmp_path_factory.mktemp("drills")
    results, said = run("all", "--jobs", "2", "--logs", str(logs))
    slow = [
        name for name, found in results.items()
        if found["broken"] and not any(found.get(figure) for figure in NEVER)
    ]  # fmt: skip
    if slow:
        again, told = run(*slow, "--logs", str(logs / "again"))
        results, said = results | again, said + told
    return results, said[-3000:]


def run(*words):
    argv = [sys.executable, "-m", "tests.drills", *words, "--short"]
    ran = subprocess.run(
        argv, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=LONGEST_SECONDS, check=False,
    )  # fmt: skip
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {result["name"]: result for result in found if "name" in result}, ran.stdout


@pytest.mark.parametrize("drill", DRILLS, ids=[drill.name for drill in DRILLS])
def test_no_promise_breaks_while(drill, drilled):
    results, said = drilled

    assert drill.name in results, said
    if why := results[drill.name].get("skipped"):
        pytest.skip(why)
    assert results[drill.name]["broken"] == [], results[drill.name]


def test_the_drills_are_in_order_and_none_is_missing():
    numbers = [drill.number for drill in DRILLS]

    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 21))
    assert len({drill.name for drill in DRILLS}) == len(DRILLS)
