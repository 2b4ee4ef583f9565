"""Release folders with the right shape and nothing that computes."""

import json

from dedup.ml.artifact import COEFFICIENTS, REQUIRED_FILES, REQUIRED_KEYS, hash_files


def write_release(artifacts, name="lamps-1", *, note="", threshold=0.8, **more):
    """A folder that `verify` accepts; another `note` makes other files of it."""
    folder = artifacts / name
    for path in REQUIRED_FILES | {"README.md"}:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"{path} {note}")
    raw = {key: {} for key in REQUIRED_KEYS} | {
        "name": name,
        "files": hash_files(folder),
        "golden": [],
        "calibration": {"coefficients": dict.fromkeys(COEFFICIENTS, 0.5)},
        "thresholds": {
            "flag": {"probability": threshold},
            "suggest": {"probability": 0.2},
            "sure": {"probability": 0.95},
        },
        **more,
    }
    (folder / "manifest.json").write_text(json.dumps(raw))
    return folder


def write_student(artifacts, teacher, name="student", *, floor=0.1, threshold=0.8, note=""):
    """A folder of a release that learned from the release `teacher`."""
    cascade = {"floor": floor, "threshold": threshold, "flagged": 500}
    known = {"name": teacher.name, "fingerprint": teacher.fingerprint}
    return write_release(artifacts, name, teacher=known, cascade=cascade, note=note)
