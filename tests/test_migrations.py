"""Migrations run beside the code of the version before: during an upgrade both are at work."""

from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection, migrations, models
from django.db.migrations.state import ProjectState
from django_migration_linter import MigrationLinter
from django_migration_linter.sql_analyser import analyse_sql_statements, get_sql_analyser_class

ROOT = Path(__file__).resolve().parents[1]
# What was looked at by eye: there was no earlier version beside them, or their tables were small.
LOOKED_AT = [
    "0001_questions_answers_and_merges",
    "0003_the_review_desk",
    "0006_long_work_in_the_background",
    "0008_words_are_indexed_at_once",
    "0010_mail_both_ways",  # drops a column
    "0010_thresholds_are_moved",
    "0012_a_release_runs_in_the_shadow",  # one row at most has what is unique
    "0013_checks_in_the_background",
    "0014_what_is_watched",
]

pytestmark = pytest.mark.django_db


def linter(**given):
    return MigrationLinter(
        str(ROOT),
        include_apps=["support", "dedup"],
        no_cache=True,
        quiet=["ok"],
        analyser_string="postgresql",
        **given,
    )


def test_no_migration_breaks_the_version_before_or_locks_a_table_for_long(capsys):
    found = linter(ignore_name=LOOKED_AT)
    found.lint_all_migrations()

    said = capsys.readouterr().out
    assert found.nb_total > len(LOOKED_AT)
    assert not found.has_errors, said
    assert found.nb_warnings == 0, said


def test_what_was_looked_at_is_there():
    names = {file.stem for file in ROOT.glob("*/migrations/0*.py")}

    assert set(LOOKED_AT) <= names


@pytest.mark.parametrize(
    "operation",
    [
        migrations.RemoveField("question", "body"),
        migrations.RenameField("question", "body", "text"),
        migrations.AddField("question", "colour", models.TextField(default="red")),
        migrations.AddIndex("question", models.Index(fields=["title"], name="by_title")),
    ],
    ids=["a column is dropped", "renamed", "new and needed", "an index that locks"],
)
def test_a_migration_that_breaks_it_is_noticed(operation):
    before = ProjectState.from_apps(apps)
    migration = migrations.Migration("0099_breaks", "support")
    migration.operations = [operation]
    with connection.schema_editor(collect_sql=True) as editor:
        migration.apply(before, editor, collect_sql=True)

    analyser = get_sql_analyser_class("postgresql")
    errors, _, warnings = analyse_sql_statements(analyser, editor.collected_sql, [])

    assert errors or warnings
