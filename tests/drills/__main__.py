"""`python -m tests.drills NAME|all [--short] [--seed N]`: what is promised, while something breaks.

Each drill has a portal of its own. Its last line of output is its result as JSON; exit 1 where a
promise broke.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from support import local
from tests.drills.servers import servers
from tests.drills.table import DRILLS, Drill, named


def main() -> int:
    """The number of drills in which a promise broke, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    names = [drill.name for drill in DRILLS]
    parser.add_argument("names", nargs="+", choices=[*names, "all"], metavar="NAME|all",
                        help=", ".join(names))  # fmt: skip
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked and when it breaks")
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes in this folder")
    parser.add_argument("--table", type=Path, help="write a table of the results to this file")
    parser.add_argument("--jobs", type=int, default=1, help="drills at the same time")
    given = parser.parse_args()
    chosen = DRILLS if "all" in given.names else [named(name) for name in given.names]
    results = run_beside(chosen, given) if given.jobs > 1 else run_all(chosen, given)
    if given.table:
        given.table.write_text(table(results), encoding="utf-8")
    if len(chosen) > 1:
        say(json.dumps(summary(results)))
    return int(any(result["broken"] for result in results))


def run_all(drills: list[Drill], given: argparse.Namespace) -> list[dict[str, Any]]:
    """One after the other, on the same servers."""
    results = []
    with tempfile.TemporaryDirectory(prefix="askonce-drills-") as scratch:
        folder = Path(scratch)
        with servers(folder / "servers") as services:
            for drill in drills:
                results.append(run(drill, services, given.logs or folder, given))
                say(json.dumps(results[-1]))
    return results


def run_beside(drills: list[Drill], given: argparse.Namespace) -> list[dict[str, Any]]:
    """So many at the same time as there are jobs, each with servers of its own."""
    flags = ["--seed", str(given.seed), *["--short"] * given.short]
    flags += ["--logs", str(given.logs)] if given.logs else []

    def job(part: list[Drill]) -> list[dict[str, Any]]:
        argv = [sys.executable, "-m", "tests.drills", *(drill.name for drill in part), *flags]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        said = [line.rstrip() for line in process.stdout if say(line.rstrip())]
        process.wait()
        found = [json.loads(line) for line in said if line.startswith("{")]
        return [result for result in found if "name" in result]

    parts = [drills[first :: given.jobs] for first in range(min(given.jobs, len(drills)))]
    with ThreadPoolExecutor(len(parts)) as pool:
        results = [result for found in pool.map(job, parts) for result in found]
    lacking = {drill.name for drill in drills} - {result["name"] for result in results}
    results += [{"name": name, "drill": named(name).number, "broken": ["it did not end"]}
                for name in lacking]  # fmt: skip
    return sorted(results, key=lambda result: int(result["drill"]))


def run(
    drill: Drill, services: local.Services, folder: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Its figures; what goes wrong in the drill itself counts as a promise that broke."""
    from tests.drills import outcome  # noqa: PLC0415 - Django is set up only now
    from tests.drills.portal import GaveUp, NotPossible, Portal  # noqa: PLC0415

    function = getattr(importlib.import_module(f"tests.drills.{drill.module}"), drill.name)
    say(f"{drill.number}. {drill.fault}: {drill.promise}")
    begun = time.monotonic()
    figures: dict[str, Any] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with Portal(f"drill_{drill.number}", folder / drill.name, services) as portal:
        try:
            found = function(portal, Random(given.seed), short=given.short)
            figures, broken = found.figures, found.broken
        except GaveUp as error:
            figures, broken = outcome.left(portal), [str(error)]
        except NotPossible as why:
            figures, broken = {"skipped": str(why)}, []
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            broken = [f"{type(error).__name__}: {error}"]
    return {
        "drill": drill.number, "name": drill.name, "seed": given.seed, "short": given.short,
        **figures, "broken": broken, "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def say(line: str) -> bool:
    """Written at once, whoever reads it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return True


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What adds up over all of them."""
    added = ("accepted", "lost", "doubled", "5xx", "healthy_quarantined", "seconds")
    return {
        "drills": len(results),
        "broken": [result["name"] for result in results if result["broken"]],
        **{name: round(sum(result.get(name, 0) for result in results), 1) for name in added},
    }


def table(results: list[dict[str, Any]]) -> str:
    """In Markdown, a row for each."""
    columns = ["accepted", "lost", "doubled", "5xx", "healthy_quarantined"]
    heads = ["", "what breaks", "accepted", "lost", "doubled", "5xx", "healthy in quarantine",
             "99 of 100 asked within, ms", "whole again after, s", "promise"]  # fmt: skip
    lines = [heads, ["---"] * len(heads)]
    for result in results:
        told = [str(result.get(name, "")) for name in columns]
        told += [f"{result['p99_ms']:.0f}" if "p99_ms" in result else ""]
        told += [f"{result['recovery_seconds']:.1f}" if "recovery_seconds" in result else ""]
        held = "; ".join(result["broken"]) or result.get("skipped", "held")
        lines.append([str(result["drill"]), named(result["name"]).fault, *told, held])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
