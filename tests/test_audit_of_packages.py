"""`.ci/audit` fails for what is known to be vulnerable, and for nothing else."""

import json
import runpy
from pathlib import Path

import pytest

told = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "audit"))["told"]
HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["1.1", "2.0"]}
WELL = {"name": "celery", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "celery", "version": "1.0", "skip_reason": "not found"}


def of(*packages):
    return told(json.dumps({"dependencies": packages, "fixes": []}))


def test_a_known_hole_fails_and_is_named_with_what_mends_it():
    said, status = of(WELL, {"name": "django", "version": "1.0", "vulns": [HOLE]})

    assert status == 1
    assert "django 1.0: PYSEC-2026-1, mended in 1.1, 2.0" in said


def test_what_nobody_has_mended_yet_fails_too():
    said, status = of({"name": "django", "version": "1.0", "vulns": [HOLE | {"fix_versions": []}]})

    assert (status, said.splitlines()[-1].endswith("no release")) == (1, True)


def test_without_a_hole_it_says_how_many_were_audited():
    assert of(WELL, UNKNOWN) == ("pip-audit: audited 1 of 2 packages, 0 found.", 0)


@pytest.mark.parametrize("report", ["", "{", "[]", "{}"])
def test_a_service_that_does_not_answer_is_no_failure_and_no_proof(report):
    said, status = told(report)

    assert (status, "NOT AUDITED" in said) == (0, True)


def test_a_service_that_knows_no_package_has_audited_nothing():
    said, status = of(UNKNOWN, {"name": "pip", "version": "1.0", "vulns": [HOLE]})

    assert (status, "NOT AUDITED" in said) == (0, True)
