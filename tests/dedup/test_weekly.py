import json
import re
from datetime import UTC, date, datetime, timedelta

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from dedup import drift, jobs, moving, weekly
from dedup.agreement import Rate
from dedup.models import Alert, Job
from dedup.templatetags.changes import SENTENCES
from support import audit, merging
from tests.dedup.watched import decide, live_a_while, time_stages
from tests.factories import (
    FlagFactory,
    ProductFactory,
    QuestionFactory,
    ReleaseFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)  # a Friday
SINCE = datetime(2026, 11, 23, tzinfo=UTC)


def of_week(name="2026-W48", now=NOW):
    return weekly.report(weekly.read_week(name, now=now), now=now)


class TestWeeks:
    def test_a_week_has_a_name_and_lies_from_monday_to_sunday(self):
        found = weekly.week_of(NOW)

        assert (found.name, found.begins_on, found.ends_on) == (
            "2026-W48",
            date(2026, 11, 23),
            date(2026, 11, 29),
        )
        assert found.before().name == "2026-W47"
        assert weekly.Week(date(2027, 1, 4)).before().name == "2026-W53"
        assert weekly.read_week("", now=NOW) == found
        assert found.until(NOW) == NOW
        assert not found.is_over(NOW)
        assert found.before().is_over(NOW)

    @pytest.mark.parametrize(
        "name", ["2026-W54", "2026-W00", "2026", "W48", "x-Wy", "2026-W49", "2026-W8", "9" * 40,
                 "-1-W10", "2026-W48x", "²-W10"]
    )  # fmt: skip
    def test_what_names_no_week_that_has_begun_is_refused(self, name, client, admin):
        with pytest.raises(weekly.NoWeek):
            weekly.read_week(name, now=NOW)


def test_only_what_happened_in_the_week_counts(agent, admin):
    release = ReleaseFactory(is_active=True, activated_at=SINCE - timedelta(days=60))
    decide(release, agent, at=SINCE + timedelta(days=1), confirmed=7, dismissed=3)
    decide(release, agent, at=SINCE - timedelta(days=1), confirmed=20, dismissed=0)
    decide(release, agent, at=SINCE + timedelta(days=8), confirmed=0, dismissed=9)
    found = of_week(now=SINCE + timedelta(days=20))

    assert (found.acceptance.agreed, found.acceptance.asked) == (7, 10)
    assert (found.acceptance_before.agreed, found.acceptance_before.asked) == (20, 20)
    assert (found.volumes.asked, found.volumes.flagged) == (10, 10)
    assert (found.volumes.confirmed, found.volumes.dismissed) == (7, 3)
    assert found.is_over


def test_merges_taken_back_are_told_and_which_of_them_a_flag_had_led_to(admin):
    pairs = [(QuestionFactory(), QuestionFactory()) for _ in range(2)]
    for number, (duplicate, canonical) in enumerate(pairs):
        edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
        merging.unmerge(merge=edge, by=admin)
        changes = {"merged_at": NOW, "undone_at": NOW, "release": "r" if number else ""}
        type(edge).objects.filter(pk=edge.pk).update(**changes)
    found = of_week().volumes

    assert (found.merged, found.unmerged, found.unmerged_flagged) == (2, 2, 1)


def test_changes_and_the_releases_in_service_are_those_of_the_audit_trail(admin):
    for days, name in ((-9, "first"), (-4, "second"), (1, "third"), (9, "fourth")):
        at = SINCE + timedelta(days=days)
        audit.record("release_activated", by=admin, now=at, release=name)
    audit.record("threshold_moved", by=admin, now=SINCE + timedelta(days=2), before=0.5, after=0.6)
    audit.record("answered", by=admin, now=SINCE + timedelta(days=2))
    found = of_week(now=SINCE + timedelta(days=30))

    assert found.releases == ["second", "third"]
    assert [one["action"] for one in found.changes] == ["release_activated", "threshold_moved"]


def test_a_group_that_is_wrongly_flagged_noticeably_more_often_is_marked(agent):
    guest, kettle = UserFactory(is_guest=True, password="!"), ProductFactory(slug="kettle")
    release = ReleaseFactory(is_active=True)
    at = SINCE + timedelta(days=1)
    decide(release, agent, at=at, confirmed=30, dismissed=2)
    decide(release, agent, at=at, confirmed=3, dismissed=17, asked_by=guest, product=kettle)
    for _ in range(40):
        QuestionFactory(asked_at=at)
    found = {one.segment: one for one in of_week().segments}

    assert {name for name, one in found.items() if one.is_wrong_more} == {
        f"product:{kettle.pk}",
        "asker:guest",
    }
    assert found["asker:guest"].is_flagged_more
    assert found["asker:guest"].wrong == Rate(17, 20)
    assert found["asker:guest"].flagged == Rate(20, 20)
    assert found["asker:known"].flagged == Rate(32, 72)
    assert not found[""].is_wrong_more


def test_of_few_nothing_is_marked():
    assert not weekly.is_more(Rate(9, 9), Rate(9, 500))
    assert weekly.is_more(Rate(30, 30), Rate(60, 500))
    assert not weekly.is_more(Rate(30, 60), Rate(250, 500))


def test_alerts_count_in_each_week_in_which_they_were_open():
    common = {"value": 1, "worst": 2, "bound": 0}
    Alert.objects.create(rule="quarantined", opened_at=SINCE - timedelta(days=9), **common)
    Alert.objects.create(
        rule="unchecked", opened_at=SINCE - timedelta(days=9), closed_at=SINCE - timedelta(days=8),
        **common,
    )  # fmt: skip

    assert [one["alert"].rule for one in of_week().alerts] == ["quarantined"]


@pytest.fixture
def release():
    return ReleaseFactory(is_active=True, threshold=0.80004)


def actions():
    """Names of what the code writes into the audit trail."""
    code = "".join(path.read_text() for path in (settings.BASE_DIR / "dedup").rglob("*.py"))
    found = re.findall(r'audit\.record\(\s*"(\w+)"', code)
    return {*found, *re.findall(r'_record\("(\w+)"', code)}


class TestPage:
    def test_an_empty_week_says_so(self, client, admin):
        client.force_login(admin)
        page = client.get(reverse("audit_week")).content.decode()

        assert "No question was asked in this week." in page
        assert "Nothing was changed in this week." in page
        assert "no verdicts yet" in page

    def test_a_week_that_was_lived_in_shows_all(self, client, admin, agent):
        now = timezone.now()
        live_a_while(now=now, by=agent, other=admin)
        client.force_login(admin)
        name = weekly.week_of(now - timedelta(days=3)).name
        page = client.get(reverse("audit_week"), {"week": name}).content.decode()

        assert "was put into service." in page
        assert "Product: Kettle" in page
        assert name in page

    def test_changes_are_sentences_with_rounded_numbers_and_names_of_people(
        self, client, admin, release
    ):
        admin.display_name = "Ada Lovelace"
        admin.save(update_fields=["display_name"])
        private = QuestionFactory(audience="private", title="My secret lamp", asked_by=admin)
        flagged = {"release": release, "older": private, "probability": 0.85}
        FlagFactory(**flagged)
        moving.move(release=release, which="flag", before=0.80004, after=0.9, by=admin)
        job = jobs.start(kind=Job.Kind.TRAIN, by=None)
        jobs.stop(job=job, by=admin)
        audit.record("release_kept_out", by=admin, now=timezone.now(), release="lamps-2",
                     gates=["labels", "drift"])  # fmt: skip
        client.force_login(admin)

        page = " ".join(client.get(reverse("audit_week")).text.split())

        for words in (
            f"The threshold “Flag” of release <bdi>{release}</bdi> was moved from 80.0 % to 90.0 %."
            " 1 open pair left the queue.",
            'Long work was started: Train a release.</td><td><span class="soft together">a command',
            "Long work was stopped: Train a release.</td><td><bdi>Ada Lovelace</bdi>",
            "Release <bdi>lamps-2</bdi> was not put into service. Missing: “Enough pairs that"
            " people judged”, “On live questions it says much the same”.",
        ):
            assert words in page, words
        for raw in ("threshold_moved", "0.80004", "reason_given", "True", "False", "secret"):
            assert raw not in page, raw
        text = weekly.as_markdown(weekly.report(weekly.week_of(timezone.now()), now=timezone.now()))
        assert "was moved from 80.0 % to 90.0 %. 1 open pair left the queue." in text
        assert "<bdi>" not in text
        assert "secret" not in text

    def test_it_is_said_in_the_language_of_its_reader_also_where_that_runs_from_right_to_left(
        self, client, admin, release
    ):
        moving.move(release=release, which="flag", before=0.80004, after=0.9, by=admin)
        client.force_login(admin)

        pages = {
            code: client.get(reverse("audit_week"), headers={"Accept-Language": code}).text
            for code in ("de", "ar")
        }

        year = f"{timezone.localtime():%Y}"
        assert "90,0" in pages["de"]
        for page in pages.values():
            heading = page.partition("<h1>")[2].partition("</h1>")[0]
            assert year in heading
            assert "-W" not in heading

    def test_what_a_change_is_called_is_known_for_all_that_are_told(self):
        told = {name for name in actions() if name.startswith(weekly.CHANGES)}

        assert told
        assert told == set(SENTENCES)

    @pytest.mark.parametrize("week", ["2999-W01", "x", "2026-W99", "\x00"])
    def test_a_week_that_is_none_is_not_found(self, client, admin, week):
        client.force_login(admin)

        assert client.get(reverse("audit_week"), {"week": week}).status_code in {400, 404}


class TestCommand:
    def test_programs_get_plain_values(self, capsys, agent, admin):
        now = timezone.now()
        live_a_while(now=now, by=agent, other=admin)
        call_command("weekly_report", "--json", "--week", weekly.week_of(now).name)
        found = json.loads(capsys.readouterr().out)

        assert found["week"] == weekly.week_of(now).name
        assert {one["measure"] for one in found["drift"]} == {"probability", "cosine"}
        assert admin.username not in json.dumps(found)
        assert found["acceptance"]["of"] == found["volumes"]["decided"]

    def test_people_get_a_text(self, capsys):
        call_command("weekly_report")
        text = capsys.readouterr().out

        assert text.startswith("# Report of week")
        assert "## To whom" in text

    def test_what_is_no_week_is_said(self):
        with pytest.raises(CommandError, match="no week"):
            call_command("weekly_report", "--week", "2999-W01")


def test_a_week_is_timed_by_its_own_hours():
    time_stages(now=NOW, days=3)

    assert of_week().degraded.checks > 0
    assert of_week("2026-W46").degraded.checks == 0
    assert drift.drifts(ReleaseFactory(), now=NOW) == []
