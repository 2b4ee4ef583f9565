"""`python -m tests.mutation`: change what `tool.mutmut` of pyproject.toml names in small ways, one
at a time, and tell which of these changes no test noticed.

What is known from an earlier run (in `mutants/`) is not tried again; with names or patterns of
mutants, as "support.merging.*", all of these are. `mutants/` gone, all begins anew. Every mutant
meets one Postgres and one Valkey, started here unless the environment names others.
"""

import subprocess
import sys
from pathlib import Path

from tests import services

MUTMUT = [sys.executable, str(Path(__file__).with_name("mutator.py"))]


def main() -> int:
    try:
        run = [*MUTMUT, "run", "--max-children", "1", *sys.argv[1:]]
        ended = subprocess.run(run, check=False).returncode
        return ended or subprocess.run([*MUTMUT, "results"], check=False).returncode
    finally:
        services.pytest_unconfigure()


if __name__ == "__main__":
    sys.exit(main())
