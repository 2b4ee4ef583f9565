import json
import shlex
import sys
from datetime import timedelta
from importlib import metadata

import pytest
from django.core.management import call_command, get_commands
from django.db import OperationalError
from django.utils import timezone

import dedup.ml.release
from dedup import releases
from dedup.management import diagnosis
from dedup.management.diagnosis import BROKEN, GOOD, NOTE, UNKNOWN
from dedup.ml import packing
from dedup.ml.artifact import ArtifactRefused
from support import outbox
from support.models import Notification, OutboxEntry
from tests.dedup.folders import write_release
from tests.factories import AnswerFactory, QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    monkeypatch.setattr(diagnosis, "PING_SECONDS", 0.3)


@pytest.fixture
def artifacts(tmp_path, settings, monkeypatch):
    """A folder of releases whose networks are not opened."""
    settings.DEDUP_ARTIFACTS = tmp_path

    class Opened:
        def __init__(self, folder, *, threads):
            self.manifest = releases.verify(folder)

    monkeypatch.setattr(dedup.ml.release, "open_release", Opened)
    return tmp_path


def examine():
    return {finding.name: finding for finding in diagnosis.examine()}


def put_into_service(artifacts, name):
    write_release(artifacts, name)
    return releases.activate(release=releases.add(name))


def unreachable(*args, **kwargs):
    raise OperationalError("secret host")


def test_what_is_there_is_good(artifacts):
    put_into_service(artifacts, "one")

    found = examine()

    good = {name for name, finding in found.items() if finding.state == GOOD}
    assert good >= {
        "python", "packages", "database", "pgvector", "migrations", "redis", "release",
        "golden pairs", "waiting", "quarantine",
    }  # fmt: skip
    assert found["release"].detail.startswith("one, files as they were")
    assert not any(finding.repair for finding in found.values() if finding.state == GOOD)


def test_without_a_worker_the_command_that_starts_one_is_named(artifacts):
    found = examine()

    assert found["workers: checks"].state == BROKEN
    assert found["workers: interactive"].repair.startswith(
        "celery -A support worker -Q interactive"
    )


def test_without_a_release_the_shipped_one_is_named(artifacts, settings):
    settings.DEDUP_RELEASE = "shipped"

    release = examine()["release"]

    assert (release.state, release.repair) == (BROKEN, "python manage.py activate_release shipped")


def test_a_release_whose_files_changed_is_told_and_the_way_back(artifacts):
    put_into_service(artifacts, "one")
    put_into_service(artifacts, "two")
    (artifacts / "two" / "README.md").write_text("other")

    release = examine()["release"]

    assert "README.md has another sha256" in release.detail
    assert release.repair == "python manage.py activate_release --back"


def test_golden_pairs_that_come_out_otherwise_are_told(artifacts, monkeypatch):
    def refuse(folder, *, threads):
        raise ArtifactRefused("a golden pair does not come out")

    put_into_service(artifacts, "one")
    monkeypatch.setattr(dedup.ml.release, "open_release", refuse)

    assert examine()["golden pairs"].state == BROKEN


def test_questions_that_wait_too_long_are_told(artifacts):
    outbox.put(QuestionFactory(), now=timezone.now() - timedelta(seconds=90))

    waiting = examine()["waiting"]

    assert (waiting.state, waiting.repair) == (BROKEN, "python manage.py check_waiting")
    assert waiting.detail.startswith("1 questions, the oldest for 9")


def test_questions_that_have_just_come_are_no_fault(artifacts):
    outbox.put(QuestionFactory())

    assert examine()["waiting"].state == GOOD


def test_the_background_is_told_and_is_never_late(artifacts):
    question = QuestionFactory()
    outbox.put_all([question.pk], is_background=True, now=timezone.now() - timedelta(days=1))

    waiting = examine()["waiting"]

    assert (waiting.state, waiting.detail) == (GOOD, "0 questions, and 1 in the background")


def test_questions_in_quarantine_are_told_and_the_repair_puts_them_up_again(artifacts, capsys):
    question, other = QuestionFactory(), QuestionFactory()
    outbox.put_all([question.pk, other.pk])
    OutboxEntry.objects.filter(question=question).update(quarantined_at=timezone.now(), attempts=3)
    quarantine = examine()["quarantine"]
    assert quarantine.state == BROKEN
    assert quarantine.detail.startswith("1 questions")

    call_command(*shlex.split(quarantine.repair)[2:])

    assert examine()["quarantine"].state == GOOD
    assert "1 questions wait" in capsys.readouterr().out


def test_a_package_that_is_missing_or_another_is_named(monkeypatch):
    version = metadata.version

    def other(name):
        if name == "torch":
            raise metadata.PackageNotFoundError
        return "0.1" if name == "kombu" else version(name)

    monkeypatch.setattr(diagnosis.metadata, "version", other)

    (packages,) = diagnosis._packages()

    assert packages.state == BROKEN
    assert "torch is missing" in packages.detail
    assert "kombu is 0.1, not" in packages.detail


def test_another_python_is_told(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))

    (python,) = diagnosis._python()

    assert python.state == BROKEN


def test_settings_that_strangers_could_use_are_told(settings):
    settings.DEMO, settings.DEBUG = False, True

    (found,) = diagnosis._settings()

    assert found.state == BROKEN
    assert "security.W018" in found.detail


def test_a_demo_s_settings_are_no_fault_as_long_as_they_work(settings):
    settings.DEMO, settings.DEBUG = True, False
    (found,) = diagnosis._settings()
    assert found.state == NOTE

    settings.DEDUP_LEASE_SECONDS = 10
    (found,) = diagnosis._settings()
    assert found.state == BROKEN


def test_safe_settings_are_good(monkeypatch):
    monkeypatch.setattr(diagnosis, "run_checks", lambda **_: [])

    (found,) = diagnosis._settings()

    assert found.state == GOOD


def test_without_database_and_broker_the_rest_is_still_told(monkeypatch, settings):
    settings.REDIS_URL = "redis://:password@127.0.0.1:1/0"
    monkeypatch.setattr(diagnosis.connection, "cursor", unreachable)

    found = examine()

    states = {name: finding.state for name, finding in found.items()}
    assert (states["database"], states["redis"]) == (BROKEN, BROKEN)
    unknown = {name for name, state in states.items() if state == UNKNOWN}
    assert unknown == {"workers", "release", "waiting", "quarantine", "mail"}
    assert states["processor"] != UNKNOWN
    assert not any("password" in f.detail or "secret" in f.detail for f in found.values())


def test_migrations_that_are_not_applied_are_told_and_nothing_else_is_asked(monkeypatch):
    plan = diagnosis.MigrationExecutor.migration_plan
    monkeypatch.setattr(
        diagnosis.MigrationExecutor, "migration_plan", lambda self, nodes: [*plan(self, nodes), 1]
    )

    found = examine()

    assert found["migrations"].repair == "python manage.py migrate"
    assert found["release"].state == UNKNOWN


def test_whatever_is_broken_names_a_command_that_exists(monkeypatch, artifacts, settings):
    settings.DEMO = False
    outbox.put(QuestionFactory(), now=timezone.now() - timedelta(seconds=90))
    broken = [finding for finding in examine().values() if finding.state == BROKEN]
    monkeypatch.setattr(diagnosis.connection, "cursor", unreachable)
    broken += [finding for finding in examine().values() if finding.state == BROKEN]

    assert len(broken) > 5
    assert all(finding.repair for finding in broken)
    manage = [f.repair.partition("manage.py ")[2] for f in broken if "manage.py" in f.repair]
    assert {words.split()[0] for words in manage} <= set(get_commands())


def test_the_command_exits_with_one_where_something_must_be_repaired(artifacts, capsys):
    with pytest.raises(SystemExit) as ended:
        call_command("doctor")

    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "activate_release" in told
    assert "broken" in told


def test_the_command_says_in_json_that_all_is_well(monkeypatch, capsys):
    finding = diagnosis.Finding("python", GOOD, "3.11.7")
    monkeypatch.setattr(diagnosis, "examine", lambda: [finding])

    call_command("doctor", "--json")

    assert json.loads(capsys.readouterr().out) == {
        "healthy": True,
        "findings": [{"name": "python", "state": "good", "detail": "3.11.7", "repair": ""}],
    }


@pytest.mark.parametrize(
    ("has", "state", "detail"),
    [
        ({"amx_tile": True, "avx512_bf16": True}, GOOD, "bf16 by amx"),
        ({"avx512_bf16": True}, GOOD, "bf16 by avx512_bf16"),
        ({"avx2": True}, NOTE, "fp32: neither AMX nor AVX-512 bf16; checks take longer"),
    ],
)
def test_what_a_processor_can_is_told(monkeypatch, has, state, detail):
    monkeypatch.setattr(packing.torch.cpu, "get_capabilities", lambda: has)

    (found,) = diagnosis._processor()

    assert (found.state, found.detail) == (state, detail)


def test_without_torch_the_doctor_still_speaks(monkeypatch):
    monkeypatch.setitem(sys.modules, "dedup.ml.packing", None)

    (found,) = diagnosis._processor()

    assert found.state == UNKNOWN


def test_mail_that_nobody_sends_is_told_and_what_perhaps_left_is_a_note(artifacts):
    answer = AnswerFactory()
    row = Notification.objects.create(
        kind="answer", recipient=answer.question.asked_by, question=answer.question, answer=answer,
        due_at=timezone.now() - timedelta(minutes=2),
    )  # fmt: skip

    late = examine()["mail"]
    Notification.objects.filter(pk=row.pk).update(status="unknown")
    doubtful = examine()["mail"]

    assert (late.state, late.repair.split(" -Q ")[1].split()[0]) == (BROKEN, "mail")
    assert (doubtful.state, doubtful.detail.split()[0]) == (NOTE, "1")


def test_a_mailbox_without_a_domain_takes_no_reply(artifacts, settings):
    assert "replies by mail" not in examine()
    settings.INBOUND_URL = "imaps://me:secret@mail.example.com"

    found = examine()["replies by mail"]

    assert found.state == BROKEN
    assert "secret" not in str(found)


def queues(*names):
    return [{"name": name} for name in names]


def test_a_worker_in_which_questions_wait_behind_a_job_is_named():
    found = list(
        diagnosis._held_up(
            {"all@one": queues("checks", "training", "mail"), "training@two": queues("training"),
             "checks@two": queues("checks", "interactive")}
        )
    )  # fmt: skip

    assert [(one.name, one.state) for one in found] == [("long work", NOTE)]
    assert found[0].detail == "all@one does long work too: checks, mail may wait behind a job"
    assert "worker -P threads -Q training" in found[0].repair
