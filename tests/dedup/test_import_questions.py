import gzip
import json

import pytest
from django.core.management import CommandError, call_command

from support.models import OutboxEntry, Question

pytestmark = pytest.mark.django_db

ROWS = [
    {"site": "lamps", "id": "1", "title": "It is dark", "body": "<p>Quite.</p>"},
    {"site": "lamps", "id": "2", "title": ""},
    {"site": "lamps", "id": "3", "title": "It hums", "body": "b" * 30_000},
]


@pytest.fixture(params=["jsonl", "jsonl.gz"])
def file(request, tmp_path):
    path = tmp_path / f"questions.{request.param}"
    content = "\n".join(json.dumps(row) for row in ROWS).encode()
    path.write_bytes(gzip.compress(content) if request.param.endswith("gz") else content)
    return path


def test_plain_and_packed_files_are_imported_and_the_rest_is_named(file, capsys):
    call_command("import_questions", file)

    told = capsys.readouterr().out
    assert "Line 2 is skipped: title is missing" in told
    assert "3 lines read: 2 questions stored, 0 known already, 1 cut to the limit, 1 lines" in told
    assert OutboxEntry.objects.waiting().count() == Question.objects.count() == 2


def test_the_report_comes_as_json_too(file, capsys):
    call_command("import_questions", file, "--json")

    report = json.loads(capsys.readouterr().out)
    assert report == {
        "read": 3,
        "stored": 2,
        "known": 0,
        "cut": 1,
        "skipped": 1,
        "problems": [[2, "title is missing"]],
    }


def test_a_dry_run_stores_nothing(file, capsys):
    call_command("import_questions", file, "--dry-run")

    assert "2 questions would be stored" in capsys.readouterr().out
    assert not Question.objects.exists()


def test_a_limit_and_a_product_can_be_named(file):
    call_command("import_questions", file, "--limit", "1", "--product", "kettle")

    assert Question.objects.get().product.slug == "kettle"


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_questions", tmp_path / "none")


def test_a_file_that_was_cut_off_is_said_and_what_was_whole_can_be_stored(tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode())[:-9])

    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_questions", path)
