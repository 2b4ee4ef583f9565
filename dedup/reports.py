"""What the pages know of a release: its newest report, its files, its card."""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dedup import releases
from dedup.ml.artifact import ALLOWED, MANIFEST, ArtifactRefused, read_manifest
from dedup.models import Release, Report

CARD = "README.md"
CHUNK = 1 << 20


def newest(release: Release, *, against: Release | None = None) -> Report | None:
    """The last report of a release, or the last that holds it against another one."""
    found = release.reports.filter(against=against) if against else release.reports.all()
    return found.select_related("against").order_by("-made_at", "-pk").first()


def newest_of(releases: Iterable[Release]) -> dict[int, Report]:
    """The last report of each release that has one, by the release's id."""
    found = Report.objects.filter(release__in=list(releases))
    rows = found.order_by("release", "-made_at", "-pk").distinct("release")
    return {report.release_id: report for report in rows}


def has_files(release: Release) -> bool:
    """Whether the folder of a release lies here, with the manifest that it came with."""
    try:
        return read_manifest(releases.folder_of(release)).fingerprint == release.fingerprint
    except ArtifactRefused:
        return False


def card_of(release: Release) -> str:
    """The model card as Markdown; empty where there is none here."""
    path = releases.folder_of(release) / CARD
    return path.read_text(encoding="utf-8") if has_files(release) and path.is_file() else ""


def files_of(release: Release) -> list[tuple[Path, str]]:
    """The files that make the release, each with its name inside the folder; no other that lies
    there, no link, and nothing of a type that releases do not have."""
    folder = releases.folder_of(release)
    if not has_files(release):
        return []
    names = [MANIFEST, *sorted(release.manifest.get("files", {}))]
    found = [(folder / name, name) for name in names]
    return [(path, name) for path, name in found if _is_inside(path, folder)]


def _is_inside(path: Path, folder: Path) -> bool:
    is_plain = path.is_file() and not path.is_symlink() and path.suffix in ALLOWED
    return is_plain and path.resolve().is_relative_to(folder.resolve())


class _Outlet:
    """A file that is only written to; what was written is taken out again."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken, self.written = b"".join(self.written), []
        return taken


def zipped(files: list[tuple[Path, str]], top: str) -> Iterator[bytes]:
    """A zip of the files in a folder named `top`, piece by piece: a release has some 70 MB. Weights
    do not grow smaller, so nothing is compressed."""
    outlet: Any = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for path, name in files:
            info = zipfile.ZipInfo(f"{top}/{name}")
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                while chunk := source.read(CHUNK):
                    entry.write(chunk)
                    yield outlet.take()
    yield outlet.take()
