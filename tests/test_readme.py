"""What the README says of settings and commands is what the code has."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "support" / "settings.py").read_text(encoding="utf-8")


def rows(section):
    """First cells of the table whose head begins like this."""
    table = README.split(f"| {section} |", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"`([A-Za-z_]+)`", "\n".join(re.findall(r"(?m)^\| ([^|]*)\|", table))))


def test_every_variable_of_the_environment_is_in_the_readme():
    read = set(re.findall(r'_(?:text|flag|number|list)\(\s*"([A-Z_]+)"', SETTINGS))
    read |= set(re.findall(r'environ\.get\(\s*"([A-Z_]+)"', SETTINGS))

    assert rows("variable") == read


def test_the_readme_gives_the_defaults_that_the_code_has():
    for name, default in re.findall(r"(?m)^\| `([A-Z_]+)` \| `([^`]+)` \|", README):
        if name in {"ASKONCE_FOLDER", "DEDUP_ARTIFACTS", "DEDUP_TRAINING_FOLDER"}:
            continue  # folders: the code has the whole path
        written = re.search(rf'"{name}"(?:, (?:default=)?"?([^")]*)"?)?\)', SETTINGS)
        assert written, name
        assert (written.group(1) or "false").lower() == default.lower(), name


def test_every_command_is_in_the_readme():
    commands = {
        file.stem
        for file in ROOT.glob("*/management/commands/*.py")
        if not file.stem.startswith("_")
    }

    assert rows("`manage.py …`") == commands


def test_the_two_lines_make_their_own_environment():
    lines = re.findall(r"(?m)^python3 -m venv .*$", README)

    assert len(lines) == 2
    assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install ") for line in lines)
    assert lines[0].endswith(".venv/bin/python manage.py demo")
    assert lines[1].endswith(".venv/bin/pytest")


def test_every_file_that_the_readme_shows_is_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
