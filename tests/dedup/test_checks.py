import pytest
from django.core.management import call_command

from dedup import checks
from tests.dedup.folders import write_release


def ids(found):
    return [message.id for message in found]


def test_the_settings_as_shipped_are_sound():
    assert checks.check_settings() == []


@pytest.mark.parametrize("seconds", [40, 45, 56])
def test_a_lease_outlives_the_hard_limit_and_ends_within_a_minute(settings, seconds):
    settings.DEDUP_LEASE_SECONDS = seconds

    assert ids(checks.check_settings()) == ["dedup.E001"]


@pytest.mark.parametrize(
    "name", ["DEDUP_BATCH", "DEDUP_SHORTLIST", "DEDUP_FLAGS_PER_QUESTION", "DEDUP_THREADS"]
)
def test_a_limit_of_nothing_is_refused(settings, name):
    setattr(settings, name, 0)

    assert ids(checks.check_settings()) == ["dedup.E002"]


@pytest.mark.parametrize("pairs", [-0.01, float("nan")])
def test_less_than_no_pair_a_question_cannot_be_asked(settings, pairs):
    settings.DEDUP_SAMPLED_PER_QUESTION = pairs

    assert ids(checks.check_settings()) == ["dedup.E004"]


def test_less_than_no_pair_a_day_cannot_be_chosen(settings):
    settings.DEDUP_CHOSEN_PER_DAY = -1

    assert ids(checks.check_settings()) == ["dedup.E004"]


def test_a_release_that_cannot_be_read_is_a_warning_as_the_site_works_without(settings, tmp_path):
    settings.DEDUP_ARTIFACTS = tmp_path
    write_release(tmp_path, "whole")
    (write_release(tmp_path, "broken") / "manifest.json").write_text("{")
    (tmp_path / "unfinished").mkdir()

    assert ids(checks.check_artifacts()) == ["dedup.W003"]
    call_command("check")


def test_a_training_with_too_little_memory_is_told_apart_from_a_refused_address(settings):
    settings.DEDUP_TRAINING_MEMORY_MB = 100
    settings.ALERT_WEBHOOK = "http://8.8.8.8/"

    assert ids(checks.check_settings()) == ["dedup.E007"]
    assert ids(checks.check_webhook()) == ["dedup.E005"]
