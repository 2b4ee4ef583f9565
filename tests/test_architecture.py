"""The house keeps its order: see the contracts in pyproject.toml."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from django.apps import apps
from importlinter import cli

ROOT = Path(__file__).parents[1]
OURS = [path for package in ("support", "dedup") for path in (ROOT / package).rglob("*.py")]
CODE = [path for path in OURS if "migrations" not in path.parts]
# Signals of Django and Celery that start something, or that a worker hears its bells by; rows never
# do anything behind one's back.
SIGNALS = {
    "dedup/job_tasks.py": {"worker_shutting_down"},
    "support/apps.py": {"post_migrate"},
    "support/celery.py": {"task_prerun", "worker_init"},
    "support/sweep.py": {"task_received"},
    "dedup/tasks.py": {"worker_process_init"},
}
BANNED_FILES = {"utils.py", "helpers.py", "services.py", "common.py", "misc.py", "signals.py"}

WEB = """
import sys
from support.wsgi import application
from django.contrib import admin
from django.core.checks import run_checks
from django.test import Client
from django.urls import get_resolver

def walk(patterns):
    for pattern in patterns:
        yield pattern
        yield from walk(getattr(pattern, "url_patterns", []))

admin.autodiscover()
assert sum(1 for _ in walk(get_resolver().url_patterns)) > 50
run_checks()
assert Client(headers={"host": "localhost"}).get("/livez").status_code == 200
from support import outbox
assert outbox.ring()
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""


def trees():
    return [(path, ast.parse(path.read_text())) for path in CODE]


def name_of(path):
    return str(path.relative_to(ROOT))


def test_the_import_contracts_are_kept(capsys):
    assert cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0, (
        capsys.readouterr().out
    )
    assert "Contracts: 6 kept" in capsys.readouterr().out


def test_a_contract_that_is_broken_is_noticed(tmp_path, monkeypatch, capsys):
    for name, text in {"low/__init__.py": "", "low/a.py": "import high.b", "high/__init__.py": "",
                       "high/b.py": ""}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "contracts.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["low", "high"]\n'
        '[[tool.importlinter.contracts]]\nname = "down"\ntype = "forbidden"\n'
        'source_modules = ["low"]\nforbidden_modules = ["high"]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert cli.lint_imports(str(tmp_path / "contracts.toml"), no_cache=True) == 1


def test_the_web_process_never_loads_the_networks():
    ran = subprocess.run(
        [sys.executable, "-c", WEB], cwd=ROOT, env={**os.environ}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    loaded = set(ast.literal_eval(ran.stdout.splitlines()[-1]))
    assert {"django", "rest_framework", "dedup"} <= loaded
    assert not {"torch", "transformers", "tokenizers"} & loaded


def test_a_worker_does_load_them():
    """Else the test above proves nothing about the names that it looks for."""
    script = "import django, sys; django.setup(); import dedup.tasks; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "support.settings"},
    )  # fmt: skip

    assert ran.stdout.split() == ["True"]


WORKER = """
import sys
from support import celery

app = getattr(celery, sys.argv[1])
app.loader.import_default_modules()
app.finalize()
print(sorted(name for name in app.tasks if not name.startswith("celery.")))
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""


def worker(app):
    """The tasks that a worker of this app knows, and the packages that it has loaded."""
    ran = subprocess.run(
        [sys.executable, "-c", WORKER, app], cwd=ROOT, env={**os.environ}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return map(ast.literal_eval, ran.stdout.splitlines()[-2:])


def test_a_worker_for_mail_knows_its_own_tasks_and_no_networks():
    tasks, loaded = worker("mail_app")

    assert {"support.tasks.send_notifications", "support.tasks.fetch_mail"} <= set(tasks)
    assert not [name for name in tasks if name.startswith("dedup.")]
    assert not {"torch", "transformers", "tokenizers"} & set(loaded)


def test_a_worker_for_long_work_knows_its_tasks_and_no_networks():
    tasks, loaded = worker("training_app")

    assert tasks == ["dedup.tasks.follow_in_shadow", "dedup.tasks.run_jobs"]
    assert not {"torch", "transformers", "tokenizers"} & set(loaded)


def test_signals_start_processes_and_nothing_else():
    found = {}
    for path, tree in trees():
        for node in ast.walk(tree):
            is_connect = isinstance(node, ast.Attribute) and node.attr == "connect"
            if is_connect and isinstance(node.value, ast.Name) and node.value.id != "psycopg":
                found.setdefault(name_of(path), set()).add(node.value.id)
            if isinstance(node, ast.Name) and node.id == "receiver":
                found.setdefault(name_of(path), set()).add("receiver")

    assert found == SIGNALS


def test_no_row_saves_itself_in_a_way_of_its_own():
    overriding = [
        f"{name_of(path)}: {item.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.name in {"save", "delete", "__del__"}
    ]

    assert overriding == []


def test_no_model_has_an_order_of_its_own():
    ours = [
        model for name in ("support", "dedup") for model in apps.get_app_config(name).get_models()
    ]

    assert len(ours) > 15
    assert [model.__name__ for model in ours if model._meta.ordering] == []


def test_no_module_is_a_drawer_for_everything():
    assert [name_of(path) for path in OURS if path.name in BANNED_FILES] == []


def test_torch_is_imported_below_ml_only():
    """But for an operator's commands, each a process of its own, and there inside a function."""
    outside = [
        (name_of(path), node in tree.body)
        for path, tree in trees()
        if "ml" not in path.parts
        for node in ast.walk(tree)
        if {"torch", "transformers"} & packages_of(node)
    ]

    assert all("/management/" in name and not is_at_top for name, is_at_top in outside), outside


def packages_of(node):
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_settings_are_read_from_the_environment_in_one_file_only():
    """A variable that is read elsewhere would be untyped and nowhere named."""
    passed_on = {"support/settings.py", "support/celery.py", "support/wsgi.py", "support/local.py"}
    passed_on.add("dedup/ml/__init__.py")  # to torch, before it loads
    reading = {name_of(path) for path in CODE if "os.environ" in path.read_text()}
    reading = {name for name in reading if "/management/" not in name}  # hand it to children

    assert reading <= passed_on
