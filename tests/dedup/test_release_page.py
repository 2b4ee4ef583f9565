"""The page of a release: what its report says, in words; its files; the API beside it."""

import io
import zipfile
from datetime import timedelta

import numpy as np
import pytest
from django.urls import reverse
from django.utils import timezone, translation

from dedup import jobs, releases
from dedup.ml import reporting
from dedup.ml.reporting import Held, Said
from dedup.models import Job, Release, Report
from dedup.views.release import Figure, Lead
from tests.dedup.folders import write_release
from tests.dedup.measured import figures
from tests.factories import ProductFactory, ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folders(tmp_path, settings):
    settings.DEDUP_ARTIFACTS = tmp_path
    return tmp_path


@pytest.fixture
def release(folders):
    write_release(folders, "lamps-1")
    return releases.activate(release=releases.add("lamps-1"))


@pytest.fixture
def report(release):
    ProductFactory(slug="fan", name="Fan & <heater>")
    return Report.objects.create(release=release, figures=figures())


def page(client, admin, release, name="release"):
    client.force_login(admin)
    return client.get(reverse(name, args=[release.pk]))


class TestPage:
    def test_shows_figures_with_their_intervals(self, client, admin, report):
        shown = page(client, admin, report.release)
        own = report.figures["own"]
        ranking = Figure.of("", own["figures"]["average_precision"])

        assert len(shown.context["figures"]) == len(reporting.FIGURES)
        assert f"{ranking.words}</strong>" in shown.content.decode()
        assert ranking.between in shown.content.decode()
        assert "140 ms" in shown.content.decode()

    def test_says_beside_the_other_release_what_is_better_and_what_cannot_be_told(
        self, client, admin, report
    ):
        leads = page(client, admin, report.release).context["leads"]

        assert leads[0].verdict == "better"
        assert leads[0].words.startswith("+")
        assert {lead.verdict for lead in leads} <= {"better", "worse", "cannot be told apart"}

    def test_draws_the_curve_of_both_and_the_reliability(self, client, admin, report):
        html = page(client, admin, report.release).content.decode()

        assert html.count('role="img"') == 2
        assert 'id="precision-recall-title"' in html
        assert "lamps-0" in html

    def test_segments_have_names_counts_and_too_few_where_there_are(self, client, admin, report):
        shown = page(client, admin, report.release)
        segments = dict(shown.context["segments"])

        assert list(segments)[:2] == ["Product", "Language"]
        assert [(row["words"], row["pairs"]) for row in segments["Product"]] == [
            ("Fan & <heater>", 160), ("lamp", 80),
        ]  # fmt: skip
        assert segments["Language"][1]["words"] == "German"
        assert "too few" in shown.content.decode()
        assert "Fan &amp; &lt;heater&gt;" in shown.content.decode()

    def test_names_languages_that_it_was_not_made_for(self, client, admin, report):
        assert (
            "other languages than: German" in page(client, admin, report.release).content.decode()
        )

    def test_where_commas_are_decimal_points_pictures_keep_their_numbers(
        self, client, admin, report
    ):
        with translation.override("de"):
            figure = Figure.of("", report.figures["own"]["figures"]["precision"])

        assert "," in figure.between
        assert all("," not in at for at in (figure.at, figure.low, figure.high))

    def test_of_too_few_pairs_it_says_how_many_it_takes(self, client, admin, release):
        none = Held([], np.asarray([]), np.asarray([]), [], [])
        own = reporting.on_own_pairs(none, Said("a", np.asarray([]), 0.5), 0.5, None)
        Report.objects.create(release=release, figures={"release": "a", "own": own})
        html = page(client, admin, release).content.decode()

        assert f"it takes {reporting.FEWEST_PAIRS} that nothing was learned from" in html
        assert 'role="img"' not in html

    def test_without_a_report_it_says_so(self, client, admin, release):
        assert "No report yet" in page(client, admin, release).content.decode()

    def test_the_newest_report_is_shown(self, client, admin, report):
        before = report.made_at - timedelta(days=1)
        Report.objects.create(release=report.release, figures={}, made_at=before)

        assert page(client, admin, report.release).context["report"] == report

    def test_a_fixed_number_of_queries_whatever_the_report_holds(
        self, client, admin, report, django_assert_max_num_queries
    ):
        page(client, admin, report.release)
        with django_assert_max_num_queries(20):
            page(client, admin, report.release)

    def test_where_the_files_are_gone_nothing_is_offered(self, client, admin):
        html = page(client, admin, ReleaseFactory()).content.decode()

        assert "cannot be downloaded" in html
        assert "Evaluate now" not in html


class TestEvaluating:
    @pytest.fixture(autouse=True)
    def rung(self, monkeypatch):
        monkeypatch.setattr(jobs, "ring", lambda: True)

    def test_the_button_puts_a_job_in_line_once(self, client, admin, release):
        client.force_login(admin)
        for _ in range(2):
            answer = client.post(reverse("release_evaluate", args=[release.pk]), follow=True)

        job = Job.objects.get()
        assert (job.kind, job.params, job.by) == ("evaluate", {"release": release.pk}, admin)
        assert "being measured already" in answer.content.decode()

    def test_the_page_says_how_far_it_is_and_why_it_failed(self, client, admin, release):
        job = jobs.start(kind=Job.Kind.EVALUATE, params={"release": release.pk}, by=admin)
        Job.objects.update(state=Job.State.RUNNING, done=1, total=4)
        shown = page(client, admin, release).content.decode()
        assert "It is being measured: 25 % done." in shown
        assert reverse("job", args=[job.pk]) in shown

        Job.objects.update(params={"release": release.pk + 1})
        assert "Another release is being measured." in page(client, admin, release).text

        Job.objects.update(params={"release": release.pk})
        Job.objects.filter(pk=job.pk).update(
            state=Job.State.FAILED, ended_at=timezone.now(), failure="It is dark."
        )
        assert "It is dark." in page(client, admin, release).content.decode()


class TestFiles:
    def test_the_zip_is_the_folder_as_the_manifest_lists_it(self, client, admin, release):
        answer = page(client, admin, release, "release_download")
        archive = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))

        assert answer["Content-Disposition"] == 'attachment; filename="lamps-1.zip"'
        assert archive.testzip() is None
        assert "lamps-1/manifest.json" in archive.namelist()
        assert len(archive.namelist()) == len(release.manifest["files"]) + 1

    def test_the_card_is_shown_and_given_out(self, client, admin, release, folders):
        shown = page(client, admin, release, "release_card").content.decode()
        file = client.get(reverse("release_card", args=[release.pk]) + "?file")

        assert "README.md" in shown
        assert file.content == (folders / "lamps-1" / "README.md").read_bytes()
        assert file["Content-Type"].startswith("text/markdown")

    def test_of_a_release_without_files_there_is_neither(self, client, admin):
        gone = ReleaseFactory(name="../..")
        assert page(client, admin, gone, "release_download").status_code == 404
        assert page(client, admin, gone, "release_card").status_code == 404


class TestProgram:
    def test_a_release_has_its_figures_and_its_report_whole(self, client, admin, report):
        client.force_login(admin)
        found = client.get(f"/api/v1/releases/{report.release_id}/").json()
        whole = client.get(f"/api/v1/releases/{report.release_id}/report/").json()

        assert found["figures"] == report.figures["own"]["figures"]
        assert whole["figures"] == report.figures
        assert (whole["release"], whole["against"]) == ("lamps-1", None)

    def test_one_that_was_not_measured_has_none(self, client, admin):
        client.force_login(admin)
        fresh = ReleaseFactory()

        assert client.get(f"/api/v1/releases/{fresh.pk}/").json()["figures"] is None
        assert client.get(f"/api/v1/releases/{fresh.pk}/report/").status_code == 404

    def test_the_list_asks_once_whatever_it_holds(
        self, client, admin, report, django_assert_max_num_queries
    ):
        client.force_login(admin)
        for _ in range(5):
            Report.objects.create(release=ReleaseFactory(), figures=report.figures)
        client.get("/api/v1/releases/")
        with django_assert_max_num_queries(8):
            assert len(client.get("/api/v1/releases/").json()["results"]) == Release.objects.count()


def test_less_of_what_errs_is_better():
    lead = {"value": -0.02, "low": -0.03, "high": -0.01, "p": 0.004}

    assert Lead.of("calibration_error", lead).verdict == "better"
    assert Lead.of("recall", lead).verdict == "worse"
    assert Lead.of("recall", lead | {"high": 0.01}).verdict == "cannot be told apart"
    assert Lead.of("recall", lead).words == "−2.0"
