"""`python -m tests.mutation [NAME...]`: mutate what `tool.mutmut` of pyproject.toml names, or only
mutants whose names match, as "support.merging.*"; what is known already is not tried again.

Every mutant meets one Postgres and one Valkey, started here unless the environment names others.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests import services


def main() -> int:
    env = os.environ | {"ASKONCE_ROUNDS": os.environ.get("ASKONCE_ROUNDS", "5")}
    argv = [sys.executable, str(Path(__file__).with_name("mutator.py"))]
    try:
        ran = subprocess.run(
            [*argv, "run", "--max-children", "1", *sys.argv[1:]], env=env, check=False
        )
        subprocess.run([*argv, "results"], env=env, check=False)
        return ran.returncode
    finally:
        services.pytest_unconfigure()


if __name__ == "__main__":
    sys.exit(main())
