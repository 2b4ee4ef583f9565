"""Services for the tests, there before Django reads its settings: loaded by `-p tests.services`."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from support import local

services: local.Services | None = None
REASON_LINES = 30
STARTED = "ASKONCE_TESTS_STARTED"  # which services were started for this run, not given to it

# A process of a parallel run has services of its own: bells and killed brokers are not for others.
for name in os.environ.get(STARTED, "").split():
    del os.environ[name]

if services is None and not {"--help", "-h", "--version"} & set(sys.argv):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on busy cores wait for each other
    os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 50)
    os.environ.setdefault("HTTPS", "false")
    os.environ.setdefault("EMAIL_URL", "locmem")
    folder = Path(tempfile.mkdtemp(prefix="askonce-tests-"))
    os.environ["ASKONCE_FOLDER"] = str(folder)
    services = local.start(folder, keep=False, durable=False)
    ours = {"DATABASE_URL": services.postgres, "REDIS_URL": services.valkey}
    os.environ[STARTED] = " ".join(name for name, server in ours.items() if server)
    os.environ["DATABASE_URL"] = services.database_url
    os.environ["REDIS_URL"] = services.redis_url


broken: list[str] = []  # why a process of a parallel run, or the run itself, broke


def pytest_internalerror(excrepr: object) -> None:
    broken.append(str(excrepr))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests of processes mostly wait."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure() -> None:
    if services:
        services.stop()
    if broken:  # the first is the cause; hundreds of lines about its consequences came after it
        reason = broken[0].splitlines()[-REASON_LINES:]
        sys.stderr.write("\n".join(["The run broke first by:", *reason, ""]))
