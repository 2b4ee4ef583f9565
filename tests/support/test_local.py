"""Real servers are started, killed and started again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis

from support import local

LAUNCHER = """
import sys, time, pathlib
from support import local
services = local.start(pathlib.Path(sys.argv[1]), durable=False, environ={})
print(services.postgres.process.pid, services.valkey.process.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def test_both_services_answer_and_postgres_has_vectors(folder):
    with local.start(folder, durable=False, environ={}) as services:
        ask(services.database_url, "CREATE EXTENSION vector")

        assert ask(services.database_url, "SELECT '[1,2]'::halfvec(2) <=> '[1,2]'") == 0
        assert redis.Redis.from_url(services.redis_url).ping()


def test_a_second_start_finds_the_data_of_the_first(folder):
    with local.start(folder, durable=False, environ={}) as services:
        ask(services.database_url, "CREATE TABLE kept AS SELECT 7 AS number")

    with local.start(folder, durable=False, environ={}) as services:
        assert ask(services.database_url, "SELECT number FROM kept") == 7


def test_without_keep_nothing_is_left(folder):
    with local.start(folder, keep=False, durable=False, environ={}):
        pass

    assert not folder.exists()


def test_a_folder_in_use_is_refused(folder):
    with (
        local.start(folder, durable=False, environ={}),
        pytest.raises(local.AlreadyRunning, match="already serves"),
    ):
        local.start(folder, durable=False, environ={})


def test_services_that_are_named_are_not_started(folder):
    named = {"DATABASE_URL": "postgresql://elsewhere/x", "REDIS_URL": "redis://elsewhere"}

    with local.start(folder, environ=named) as services:
        assert (services.postgres, services.valkey) == (None, None)
        assert services.redis_url == "redis://elsewhere"


def test_killed_servers_come_back_on_the_same_port(folder):
    with local.start(folder, environ={}) as services:
        assert services.postgres is not None
        assert services.valkey is not None
        ask(services.database_url, "CREATE TABLE kept AS SELECT 7 AS number")
        redis.Redis.from_url(services.redis_url).set("bell", "rung")

        for server in (services.postgres, services.valkey):
            server.kill()
            server.restart()

        assert ask(services.database_url, "SELECT number FROM kept") == 7
        assert redis.Redis.from_url(services.redis_url).get("bell") is None


def test_a_killed_launcher_leaves_nothing_running_and_can_start_again(folder):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    children = [int(pid) for pid in launcher.stdout.readline().split()]
    assert len(children) == 2

    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()

    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))
    with local.start(folder, durable=False, environ={}) as services:
        assert ask(services.database_url, "SELECT 1") == 1


def test_a_server_that_cannot_start_says_why(folder, monkeypatch):
    monkeypatch.setitem(local.POSTGRES_OPTIONS, "max_connections", "nonsense")

    with pytest.raises(local.CannotStart, match="max_connections"):
        local.start(folder, durable=False, environ={})
    monkeypatch.undo()
    with local.start(folder, durable=False, environ={}) as services:
        assert ask(services.database_url, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become nobody")
def test_root_without_user_namespaces_runs_postgres_as_nobody(folder, monkeypatch):
    monkeypatch.setattr(local.shutil, "which", lambda name: None)

    with local.start(folder, keep=False, durable=False, environ={}) as services:
        assert services.postgres is not None
        owner = Path(f"/proc/{services.postgres.process.pid}").stat().st_uid
        assert owner == local.NOBODY
        assert ask(services.database_url, "SELECT 1") == 1
        home = Path((folder / local.HOME_NOTE).read_text())
        assert home.stat().st_uid == local.NOBODY
    assert not home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become nobody")
def test_a_new_folder_never_finds_the_data_of_a_removed_one(folder, monkeypatch):
    monkeypatch.setattr(local.shutil, "which", lambda name: None)
    homes = []

    for _ in range(2):  # most file systems give the second folder the first one's inode
        with local.start(folder, durable=False, environ={}) as services:
            assert ask(services.database_url, "SELECT 1") == 1
        homes.append(Path((folder / local.HOME_NOTE).read_text()))
        shutil.rmtree(folder)

    assert homes[0] != homes[1]
    for home in homes:
        shutil.rmtree(home)
