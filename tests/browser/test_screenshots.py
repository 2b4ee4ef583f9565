from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from dedup.management.commands import screenshots


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("sync_playwright", None, "Playwright is missing"),
        ("CHROMIUM", Path("/nowhere/chromium"), "/nowhere/chromium is missing"),
    ],
)
def test_what_is_missing_for_pictures_is_named(monkeypatch, tmp_path, name, value, words):
    monkeypatch.setattr(screenshots, name, value)

    with pytest.raises(CommandError, match=words):
        call_command("screenshots", out=tmp_path)
