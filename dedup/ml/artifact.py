"""Files of a release: manifest, hashes, fingerprint. Imports without torch."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

MANIFEST = "manifest.json"
ALLOWED = {".json", ".safetensors", ".md", ".txt", ".svg"}
REQUIRED_KEYS = {
    "name", "created_at", "files", "recipe", "data", "base", "metrics", "calibration",
    "thresholds", "languages", "licences", "golden",
}  # fmt: skip
REQUIRED_FILES = {
    f"{part}/{name}"
    for part in ("bi-encoder", "cross-encoder")
    for name in ("config.json", "model.safetensors", "tokenizer.json")
}


class ArtifactRefused(Exception):
    """The folder is not a release that may be loaded; the text says why."""


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says, with its own hash as the release's fingerprint."""

    name: str
    fingerprint: str
    embedding_fingerprint: str
    thresholds: dict[str, float]
    raw: dict[str, Any]


def read_manifest(folder: Path) -> Manifest:
    """Reads without hashing the other files. Raises ArtifactRefused."""
    try:
        content = (Path(folder) / MANIFEST).read_bytes()
        raw = json.loads(content, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error  # a page names no path here
        raise ArtifactRefused(f"manifest.json cannot be read: {why}") from error
    missing = REQUIRED_KEYS - raw.keys() if isinstance(raw, dict) else REQUIRED_KEYS
    if missing:
        raise ArtifactRefused(f"manifest.json lacks {', '.join(sorted(missing))}")
    try:
        thresholds = {k: float(v["probability"]) for k, v in raw["thresholds"].items()}
        embedding = _embedding_fingerprint(raw["files"])
        calibration = [float(raw["calibration"]["coefficients"][k]) for k in COEFFICIENTS]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactRefused(f"manifest.json is malformed: {error!r}") from error
    if THRESHOLDS - thresholds.keys() or len(calibration) != len(COEFFICIENTS):
        raise ArtifactRefused("manifest.json lacks a threshold")
    if not (thresholds["flag"] > 0 and all(0 <= thresholds[name] <= 1 for name in THRESHOLDS)):
        raise ArtifactRefused("manifest.json has a threshold that is no share")
    if not all(map(math.isfinite, calibration)):
        raise ArtifactRefused("manifest.json has a calibration that is no number")
    fingerprint = hashlib.sha256(content).hexdigest()
    return Manifest(str(raw["name"]), fingerprint, embedding, thresholds, raw)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


COEFFICIENTS = ("bias", "by_logit", "by_cosine", "prior")
OPTIONAL_COEFFICIENTS = ("low", "high")
THRESHOLDS = {"flag", "suggest", "sure"}


def verify(folder: Path) -> Manifest:
    """Checks that exactly the listed files are there, unchanged. Raises ArtifactRefused."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    listed: dict[str, str] = manifest.raw["files"]
    present = set()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ArtifactRefused(f"{path.name} is a link")
        if path.is_file():
            present.add(path.relative_to(folder).as_posix())
    for name in sorted(present | set(listed)):
        if Path(name).suffix not in ALLOWED:
            raise ArtifactRefused(f"{name} has a file type that releases do not have")
    if gone := (set(listed) | REQUIRED_FILES) - present:
        raise ArtifactRefused(f"missing: {', '.join(sorted(gone))}")
    if extra := present - set(listed) - {MANIFEST}:
        raise ArtifactRefused(f"not in the manifest: {', '.join(sorted(extra))}")
    for name, wanted in listed.items():
        if file_hash(folder / name) != wanted:
            raise ArtifactRefused(f"{name} has another sha256 than the manifest says")
    return manifest


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file but the manifest, by path inside the folder."""
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def file_hash(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embedding_fingerprint(files: dict[str, str]) -> str:
    """Changes when, and only when, stored vectors no longer fit."""
    kept = sorted((k, v) for k, v in files.items() if k.startswith("bi-encoder/"))
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()
