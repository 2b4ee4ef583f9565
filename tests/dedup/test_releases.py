import shutil

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from dedup import releases
from dedup.management.commands import activate_release
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Release, Report
from support.models import AuditEntry
from tests.dedup.folders import write_release
from tests.factories import ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(tmp_path, settings):
    settings.DEDUP_ARTIFACTS = tmp_path
    return tmp_path


@pytest.fixture
def opened(monkeypatch):
    """Folders that were opened, instead of networks."""
    found = []
    monkeypatch.setattr(activate_release, "open_release", found.append)
    return found


@pytest.fixture
def three(artifacts):
    """Three releases, put into service one after the other."""
    return [
        releases.activate(release=releases.add(write_release(artifacts, name).name))
        for name in ("one", "two", "three")
    ]


def test_a_release_takes_its_thresholds_from_its_manifest(artifacts):
    write_release(artifacts, "one", threshold=0.7)

    release = releases.add("one")

    found = (release.threshold, release.suggestion_floor, release.sure_threshold)
    assert found == (0.7, 0.2, 0.95)
    assert not release.is_active


def test_adding_a_release_again_keeps_the_threshold_that_was_moved(artifacts):
    write_release(artifacts, "one")
    Release.objects.filter(pk=releases.add("one").pk).update(threshold=0.9)

    assert releases.add("one").threshold == 0.9
    assert Release.objects.count() == 1


def test_other_files_under_an_old_name_are_another_release(artifacts):
    write_release(artifacts, "one")
    before = releases.activate(release=releases.add("one"))
    write_release(artifacts, "one", note="better")

    after = releases.add("one")

    before.refresh_from_db()
    assert after.pk != before.pk
    assert before.name == f"one@{before.fingerprint[:12]}"
    assert releases.active() == before


def test_without_an_active_release_that_is_said():
    with pytest.raises(releases.NoRelease, match="activate_release"):
        releases.active()


def test_one_release_is_active(three):
    assert list(Release.objects.filter(is_active=True)) == [three[2]]
    assert releases.active().previous == three[1]


def test_the_database_refuses_a_second_active_release(three):
    with pytest.raises(IntegrityError, match="release_one_active"), transaction.atomic():
        Release.objects.update(is_active=True)


def test_the_database_refuses_a_threshold_that_flags_everything():
    with pytest.raises(IntegrityError, match="release_threshold_is_share"), transaction.atomic():
        ReleaseFactory(threshold=0)


def test_activating_the_active_release_changes_nothing(three):
    releases.activate(release=three[2])

    assert releases.active().previous == three[1]
    assert AuditEntry.objects.filter(action="release_activated").count() == 3


def test_who_activates_a_release_is_on_record(artifacts, admin):
    write_release(artifacts, "one")

    release = releases.activate(release=releases.add("one"), by=admin)

    assert release.activated_by == admin
    assert AuditEntry.objects.get(action="release_activated").by == admin


def test_rolling_back_twice_goes_back_two_releases(three):
    assert releases.roll_back() == three[1]
    assert releases.roll_back() == three[0]

    with pytest.raises(releases.NoWayBack, match="one replaced no other"):
        releases.roll_back()


@pytest.mark.parametrize("move", ["activate", "roll_back"])
def test_a_release_whose_files_changed_is_refused_and_the_active_one_stays(three, artifacts, move):
    (artifacts / "two" / "README.md").write_text("other")

    with pytest.raises(ArtifactRefused, match="sha256"):
        releases.roll_back() if move == "roll_back" else releases.activate(release=three[1])

    assert releases.active() == three[2]


def test_a_release_whose_folder_holds_another_one_is_refused(three, artifacts):
    write_release(artifacts, "two", note="better")

    with pytest.raises(ArtifactRefused, match="other files"):
        releases.activate(release=three[1])

    assert releases.active() == three[2]


def test_the_command_proves_a_release_and_puts_it_into_service(artifacts, opened, capsys):
    write_release(artifacts, "one")

    call_command("activate_release", "one")

    assert opened == [artifacts / "one"]
    assert releases.active().name == "one"
    assert "one is in service" in capsys.readouterr().out


def test_a_release_that_fails_its_golden_pairs_never_goes_live(three, artifacts, monkeypatch):
    def refuse(folder):
        raise ArtifactRefused("a golden pair does not come out")

    monkeypatch.setattr(activate_release, "open_release", refuse)
    write_release(artifacts, "four")

    with pytest.raises(CommandError, match="golden pair"):
        call_command("activate_release", "four")

    assert releases.active() == three[2]


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf"), -1, 0, 1.5])
def test_a_threshold_that_is_no_share_is_refused(artifacts, threshold):
    write_release(artifacts, "one", threshold=threshold)

    with pytest.raises(ArtifactRefused, match=r"no (share|number)"):
        releases.add("one")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_manifest_with_what_is_no_number_is_refused(artifacts, number):
    folder = write_release(artifacts, "one")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"bias": 0.5', f'"bias": {number}'))

    with pytest.raises(ArtifactRefused, match="no number"):
        releases.add("one")


def test_the_command_says_that_gates_were_not_asked_where_nothing_was_measured(
    three, artifacts, opened, capsys
):
    write_release(artifacts, "four")

    call_command("activate_release", "four")

    assert "Its gates were not asked" in capsys.readouterr().out
    assert releases.active().name == "four"


def test_the_command_asks_the_gates_of_a_release_that_was_measured(three, artifacts, opened):
    four = releases.add(write_release(artifacts, "four").name)
    figures = {"fingerprint": four.fingerprint}
    Report.objects.create(release=four, against=three[2], figures=figures)

    with pytest.raises(CommandError, match="gates are shut"):
        call_command("activate_release", "four")
    assert releases.active() == three[2]

    call_command("activate_release", "four", "--force", "The other one is worse.")
    assert releases.active().overruled == "The other one is worse."


def test_the_command_refuses_a_folder_that_is_not_there(three):
    with pytest.raises(CommandError, match=r"manifest\.json cannot be read"):
        call_command("activate_release", "none")

    assert releases.active() == three[2]


def test_the_command_rolls_back(three, opened):
    call_command("activate_release", "--back")

    assert releases.active() == three[1]


def test_if_none_leaves_a_release_that_can_be_used(three, artifacts, opened):
    write_release(artifacts, "four")

    call_command("activate_release", "four", "--if-none")

    assert releases.active() == three[2]


def test_if_none_replaces_a_release_whose_files_are_gone(three, artifacts, opened):
    shutil.rmtree(artifacts / "three")
    write_release(artifacts, "four")

    call_command("activate_release", "four", "--if-none")

    assert releases.active().name == "four"
