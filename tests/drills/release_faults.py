"""Releases that are broken, and releases that change places under load."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import requests
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.urls import reverse
from safetensors.numpy import load_file, save_file

from dedup import releases
from dedup.management.bench import promotion
from dedup.management.bench.queue import PLAIN, person
from dedup.ml.artifact import MANIFEST, REQUIRED_FILES, ArtifactRefused, hash_files
from dedup.models import Release
from dedup.texts import Text, text_of
from support import permissions
from support.models import Question
from tests.drills import outcome
from tests.drills.load import Load
from tests.drills.outcome import Outcome
from tests.drills.portal import GaveUp, Portal

WEIGHTS = "cross-encoder/model.safetensors"
ROLLED_BACK_WITHIN = 60.0  # seconds, without a restart
LATE = "The duplicate check is late"

Breaking = Callable[[Path, Random], None]


# --- Ways in which a folder is no release ----------------------------------------------------


def truncated(folder: Path, rng: Random) -> None:
    """A copy that was interrupted."""
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(rng.randrange((folder / WEIGHTS).stat().st_size))


def flipped(folder: Path, rng: Random) -> None:
    """One bit of one file."""
    file = folder / rng.choice(sorted(REQUIRED_FILES))
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def missing(folder: Path, rng: Random) -> None:
    """One file less."""
    (folder / rng.choice([*sorted(REQUIRED_FILES), MANIFEST])).unlink()


def linked(folder: Path, _: Random) -> None:
    """Weights that lie elsewhere."""
    elsewhere = folder.parent / "elsewhere.safetensors"
    shutil.move(folder / WEIGHTS, elsewhere)
    (folder / WEIGHTS).symlink_to(elsewhere)


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def pickled(folder: Path, _: Random) -> None:
    """A pickle under the name of the weights, with the hash that the manifest wants."""
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(folder.parent / "exploded")))
    _hash_again(folder)


def pickled_beside(folder: Path, _: Random) -> None:
    """A pickle that a loader might prefer, listed as it should be."""
    bomb = pickle.dumps(Bomb(folder.parent / "exploded"))
    (folder / "cross-encoder" / "pytorch_model.bin").write_bytes(bomb)
    _hash_again(folder)


def not_a_number(folder: Path, _: Random) -> None:
    """Weights that a training lost, well hashed."""
    tensors = load_file(folder / WEIGHTS)
    tensors["classifier.bias"] = np.full_like(tensors["classifier.bias"], np.nan)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _hash_again(folder)


def outside(folder: Path, _: Random) -> None:
    """A manifest that names a file of the machine."""
    _rewrite(folder, lambda raw: raw["files"].update({"../../../etc/hosts.json": "0" * 64}))


def ungolden(folder: Path, _: Random) -> None:
    """No pair by which it could be proved."""
    _rewrite(folder, lambda raw: raw.update(golden=[]))


def uncalibrated(folder: Path, _: Random) -> None:
    """A calibration that is no number, and neither are its golden pairs."""

    def spoil(raw: dict[str, Any]) -> None:
        raw["calibration"]["coefficients"]["bias"] = float("nan")
        for one in raw["golden"]:
            one["probability"] = float("nan")

    _rewrite(folder, spoil)


def thresholdless(folder: Path, rng: Random) -> None:
    """Networks that are whole, and a threshold that flags nothing, or everything."""
    wrong = rng.choice([float("nan"), 0.0, -1.0, 1.5, float("inf")])
    _rewrite(folder, lambda raw: raw["thresholds"]["flag"].update(probability=wrong))


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(raw)
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def _hash_again(folder: Path) -> None:
    _rewrite(folder, lambda raw: raw.update(files=hash_files(folder)))


ON_DISK: list[Breaking] = [truncated, flipped, missing, linked]
AS_MADE: list[Breaking] = [
    pickled, pickled_beside, not_a_number, outside, ungolden, uncalibrated, thresholdless,
]  # fmt: skip


# --- The drills ------------------------------------------------------------------------------


def broken_releases(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Whatever is put forward is broken; then what is in service breaks, on the worker's disk."""
    found = Outcome()
    with two_releases(portal) as (first, second):
        disk = portal.folder / "disk"  # of the machine on which the worker runs
        shutil.copytree(settings.DEDUP_RELEASES_FOLDER, disk)
        url = portal.start_web()
        portal.start_worker(DEDUP_RELEASES_FOLDER=str(disk))
        load = Load([url], rng, pause=2.0, threads=1)
        with load:
            portal.wait(lambda: outcome.checked(portal) > 4, "first checks")
            refuse_all(found, rng, first, second, times=1 if short else 5)
            _promote_what_the_worker_lacks(found, portal, rng, second, disk)
        portal.wait(lambda: not outcome.waiting(portal), "all are checked", seconds=600)
        _break_in_service(found, portal, rng, load, disk / first.name)
        _judge_scores(found, first, second, texts_of_now())
        by_second = found.figures["scores_by_release"][second.name]
        found.promise(holds=by_second == 0, words="nothing comes of a release that was refused")
        exploded = list(portal.folder.rglob("exploded"))
        found.promise(holds=not exploded, words="no pickle is ever opened")
    found.count(portal, load)
    return found


def promoted_under_load(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Two releases change places all the time; each score tells which of them gave it."""
    found = Outcome()
    with two_releases(portal) as (first, second):
        url = portal.start_web()
        for name in ["checks"] if short else ["checks", "checks-2"]:
            portal.start_worker(name)
        load = Load([url], rng, pause=2.0, threads=1, reads=True)
        edits = promotion.Load(rng=rng)
        with load:
            portal.wait(lambda: outcome.checked(portal) > 4, "first checks")
            try:
                seconds = 15 if short else 240
                switched = promotion.switch(first, second, edits, seconds, fewest=2)
            except RuntimeError as error:
                raise GaveUp(str(error)) from error
        portal.wait(lambda: not outcome.waiting(portal), "all are checked", seconds=600)
        found.note(**switched)
        most = switched["seconds_until_used"]["most"]
        found.promise(
            holds=most <= ROLLED_BACK_WITHIN,
            words=f"each is in use within {ROLLED_BACK_WITHIN:.0f} s",
        )
        _judge_scores(found, first, second, edits.texts | texts_of_now())
        by_release = found.figures["scores_by_release"]
        found.promise(holds=min(by_release.values()) > 0, words=f"both scored: {by_release}")
    found.count(portal, load)
    return found


@contextmanager
def two_releases(portal: Portal) -> Iterator[tuple[Release, Release]]:
    """The one in service, and a twin that finds every pair likelier, in a folder of the drill's."""
    folder = portal.folder / "releases"
    with override_settings(**PLAIN, DEDUP_RELEASES_FOLDER=str(folder)):
        first = releases.active()
        shutil.copytree(Path(settings.DEDUP_ARTIFACTS) / first.name, folder / first.name)
        portal.environ |= {"DEDUP_RELEASES_FOLDER": str(folder)}
        twin = promotion.write_twin(first.name, folder / "twin")
        yield first, releases.add(twin.name)


def refuse_all(found: Outcome, rng: Random, first: Release, second: Release, *, times: int) -> None:
    """Put each kind of broken folder forward in each way that there is."""
    folder, tried = Path(settings.DEDUP_RELEASES_FOLDER), 0
    admin = person(permissions.ADMIN)
    for turn in range(times):
        for breaking in [*ON_DISK, *AS_MADE]:
            name = f"{breaking.__name__}-{turn}"
            shutil.copytree(folder / second.name, folder / name)
            breaking(folder / name, rng)
            ways = [lambda name=name: by_command(name), lambda name=name: by_page(admin, name)]
            for way in ways:
                tried += 1
                found.promise(holds=way(), words=f"{name} is refused")
                active = releases.active()
                found.promise(holds=active == first, words=f"the old one goes on, not {active}")
                _back_to(first)
        for breaking in ON_DISK:  # of one that was known before it broke
            whole = folder.parent / "whole"
            shutil.copytree(folder / second.name, whole)
            breaking(folder / second.name, rng)
            tried += 1
            refused = by_command(second.name) and by_page(admin, second.name)
            found.promise(holds=refused, words=f"{breaking.__name__} is refused once it is known")
            _back_to(first)
            shutil.rmtree(folder / second.name)
            shutil.move(whole, folder / second.name)
    found.note(refused=tried)


def by_command(name: str) -> bool:
    """Whether it is refused there, also where somebody insists."""
    try:
        call_command("activate_release", name, force="in a drill", verbosity=0)
    except CommandError:
        return True
    return False


def by_page(admin: Any, name: str) -> bool:
    """Whether it is refused there, also where somebody insists: or cannot even be seen there."""
    with suppress(ArtifactRefused):
        releases.add(name)
    release = Release.objects.filter(name=name).first()
    if release is None:
        return True
    said = admin.post(reverse("promote", args=[release.pk]), {"reason": "in a drill"})
    return bool(said.status_code == 409)


def _back_to(first: Release) -> None:
    """So that one that was let in by mistake spoils no other figure."""
    if releases.active() != first:
        releases.activate(release=first)


def _promote_what_the_worker_lacks(
    found: Outcome, portal: Portal, rng: Random, second: Release, disk: Path
) -> None:
    """Where web and worker have disks of their own, what is whole on one may be broken on the
    other."""
    rng.choice(ON_DISK)(disk / second.name, rng)
    before = outcome.checked(portal)
    releases.activate(release=second)
    portal.wait(lambda: portal.says("checks", "goes on"), "the worker refuses it")
    portal.wait(lambda: outcome.checked(portal) > before + 4, "the old one goes on")
    back = releases.roll_back()
    found.promise(holds=back != second, words="what came before comes back")


def _break_in_service(
    found: Outcome, portal: Portal, rng: Random, load: Load, folder: Path
) -> None:
    """What is in service breaks. Who has it in memory goes on; who begins anew cannot."""
    whole, session = folder.parent / "whole", requests.Session()
    shutil.copytree(folder, whole)
    rng.choice(ON_DISK)(folder, rng)
    load.ask(session, 0)
    portal.wait(lambda: not outcome.waiting(portal), "who has it in memory goes on")
    portal.kill("checks")
    portal.log("checks").unlink()
    portal.start_again("checks")
    for one in range(3):
        load.ask(session, one)
    portal.wait(lambda: portal.says("checks", "Questions wait"), "it is refused")
    portal.query(
        "UPDATE support_outboxentry SET put_at = put_at - interval '2 minutes' RETURNING 1"
    )
    waits = outcome.waiting(portal)
    found.promise(holds=waits == 3, words=f"questions wait: {waits}")
    said = person(permissions.AGENT).get(reverse("home")).content.decode()
    found.promise(holds=LATE in said, words="and the site says so to those who review")
    shutil.rmtree(folder)
    shutil.move(whole, folder)
    took = portal.wait(lambda: not outcome.waiting(portal), "once it is mended all are checked")
    found.note(mended_seconds=took)
    failed = portal.query("SELECT 1 FROM support_outboxentry WHERE attempts > 0 OR is_suspect")
    found.promise(holds=not failed, words="no question is blamed for it")


def _judge_scores(found: Outcome, first: Release, second: Release, texts: dict[str, Text]) -> None:
    """Each score is what the release says that it names, and each flag has its score."""
    compared = promotion.compared(first, second, texts)
    pairs = compared["pairs"]
    wrong = compared["flags_without_their_score"]
    found.note(scores=pairs["scores"], right=pairs["right"], wrong_flags=wrong,
               scores_by_release=compared["scores_by_release"])  # fmt: skip
    found.promise(holds=pairs["scores"] > 0 and not pairs["alike"], words="scores tell who gave it")
    found.promise(holds=pairs["right"] == pairs["scores"], words=f"each names its own: {pairs}")
    found.promise(holds=wrong == 0, words=f"each flag is of its score: {wrong}")


def texts_of_now() -> dict[str, Text]:
    """The texts of all questions, by their hashes."""
    read = (text_of(question) for question in Question.objects.all())
    return {text.hash: text for text in read}
