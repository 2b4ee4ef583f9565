"""`python -m tests.load [--seconds N]`: how a portal on this machine holds the promised load.

Twenty questions a second are asked; five times a second somebody reads or searches, as often a
draft is suggested for, once a verdict is given, while the worker that checks keeps a processor
busy. What comes out: requests a second, milliseconds, failures, memory and processor time of each
process. The last line of output is the result as JSON.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.drills.servers import servers


def main() -> int:
    """1 where a request failed or a promised time was not held."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--seconds", type=int, default=1800, help="of load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes in this folder")
    parser.add_argument("--ask", type=int, default=20, help="a second")
    parser.add_argument("--read", type=int, default=5, help="a second")
    parser.add_argument("--suggest", type=int, default=5, help="a second")
    parser.add_argument("--decide", type=int, default=1, help="a second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="askonce-load-") as scratch:
        folder = Path(scratch)
        with servers(folder / "servers") as services:
            from tests.drills.portal import Portal  # noqa: PLC0415 - Django is set up only now
            from tests.load.measuring import measure  # noqa: PLC0415

            logs = given.logs or folder / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            with Portal("load", logs / "portal", services) as portal:
                found = measure(portal, given, folder)
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(found["broken"]))


if __name__ == "__main__":
    sys.exit(main())
