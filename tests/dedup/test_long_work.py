"""Pages and API of long work: started, watched, stopped."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone, translation

from dedup import jobs, starting, tasks
from dedup.models import Job
from dedup.templatetags.long_work import lasted, said, time_left
from dedup.views.long_work import ON_A_PAGE
from support import outbox
from support.models import ApiToken, AuditEntry
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db
TRAINING = {"base": "current", "epochs": "3", "minutes": "5", "seed": "1"}
HTMX = {"HTTP_HX_REQUEST": "true"}


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch):
    monkeypatch.setattr(outbox, "send", lambda *_, **__: True)


@pytest.fixture
def as_admin(client, admin):
    client.force_login(admin)
    return client


def running(**fields):
    now = timezone.now()
    return Job.objects.create(
        kind="train", state="running", started_at=now, seen_at=now, **fields
    )  # fmt: skip


@pytest.mark.usefixtures("enough_verdicts")
def test_an_admin_starts_a_training_and_sees_how_far_it_is(as_admin, admin):
    answer = as_admin.post(reverse("start_training"), {**TRAINING, "precision": "70"})

    job = Job.objects.get()
    assert answer["Location"] == reverse("job", args=[job.pk])
    assert job.params == {
        "base": "current", "epochs": 3, "minutes": 5.0, "seed": 1, "precision": 0.7, "name": "",
    }  # fmt: skip
    assert job.by == admin
    assert AuditEntry.objects.get(action="job_started").details == {"job": job.pk, "kind": "train"}


@pytest.mark.usefixtures("enough_verdicts")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": "99"}, "once to 20 times"),
        ({"minutes": "600"}, "one minute to 60"),
        ({"precision": "150"}, "less than or equal to 99"),
        ({"name": "../up"}, "small letters"),
        ({"base": "mine"}, "mine is not one of"),
        ({"epochs": ""}, "This field is required"),
    ],
)
def test_what_cannot_be_trained_is_said_at_its_field_and_kept(as_admin, given, words):
    answer = as_admin.post(reverse("start_training"), {**TRAINING, **given})

    page = answer.content.decode()
    assert answer.status_code == 422
    assert words in page
    assert "<details open>" in page.replace("<details  open>", "<details open>")
    assert not Job.objects.exists()


def test_with_too_few_verdicts_the_form_says_what_is_missing_and_starts_nothing(as_admin):
    answer = as_admin.post(reverse("start_training"), {**TRAINING, "seed": "9"})

    page = " ".join(answer.text.split())
    assert answer.status_code == 422
    assert "about 400, at least 80 of them on duplicates and 80 on pairs that are none" in page
    assert 'name="seed" value="9"' in page
    assert not Job.objects.exists()


def test_a_second_training_leads_to_the_one_that_runs(as_admin):
    job = running()

    answer = as_admin.post(reverse("start_training"), TRAINING, follow=True)

    assert answer.redirect_chain == [(reverse("job", args=[job.pk]), 302)]
    assert "waits or runs already" in answer.content.decode()


def test_an_admin_takes_a_checkpoint_by_folder_or_name(as_admin, settings, tmp_path):
    (tmp_path / "theirs").mkdir()
    settings.DEDUP_CHECKPOINTS = str(tmp_path)
    page = as_admin.get(reverse("jobs")).content.decode()

    as_admin.post(reverse("start_adopt"), {"checkpoint": "theirs", "languages": "en de"})

    assert '<option value="theirs">' in page
    assert Job.objects.get().params == {
        "checkpoint": "theirs", "name": "theirs", "languages": ["en", "de"],
    }  # fmt: skip


@pytest.mark.parametrize("checkpoint", ["../secret", "/etc", "a/../b", "unknown"])
def test_no_other_folder_is_taken(as_admin, checkpoint):
    answer = as_admin.post(reverse("start_adopt"), {"checkpoint": checkpoint, "languages": "en"})

    assert answer.status_code == 422
    assert "neither a folder among the checkpoints" in answer.content.decode()
    assert not Job.objects.exists()


def test_the_page_shows_how_far_it_is_and_asks_again_by_itself(as_admin):
    job = running(step="training, loss 0.2", done=30, total=120, seconds_left=200.0)

    page = as_admin.get(reverse("job", args=[job.pk])).content.decode()
    part = as_admin.get(reverse("job", args=[job.pk]), **HTMX)

    assert 'hx-trigger="every 2s"' in page
    assert "django_htmx/htmx-2.min" in page
    assert 'value="25"' in page
    assert "about 3 minutes left" in page
    assert "<html" not in part.content.decode()
    assert "30 of 120" in part.content.decode()
    assert "HX-Refresh" not in part.headers


def test_a_job_that_has_ended_asks_for_the_whole_page_and_no_more(as_admin):
    job = Job.objects.create(
        kind="train", state="failed", ended_at=timezone.now(), failure="x",
        result={"said": jobs.NO_MEMORY, "details": {"megabytes": 700}},
    )  # fmt: skip

    page = as_admin.get(reverse("job", args=[job.pk])).content.decode()
    part = as_admin.get(reverse("job", args=[job.pk]), **HTMX)

    assert "hx-trigger" not in page
    assert "700 MB" in page
    assert part.headers["HX-Refresh"] == "true"


def test_a_release_that_was_measured_is_not_said_to_be_out_of_service(as_admin):
    made = {"release": "spring", "release_id": 7}
    job = Job.objects.create(kind="evaluate", state="done", ended_at=timezone.now(), result=made)

    page = as_admin.get(reverse("job", args=[job.pk])).text

    assert "Its report" in page
    assert reverse("release", args=[7]) in page
    assert "not in service" not in page


def test_a_job_that_is_done_leads_to_what_it_made(as_admin):
    labels = {"train": 800, "implied": 4, "replayed": 9, "tune": 170, "hold": 168}
    made = {"release": "spring", "release_id": 7, "labels": labels, "basis": "as before",
            "average_precision": 0.912, "average_precision_before": 0.841}  # fmt: skip
    job = Job.objects.create(kind="train", state="done", ended_at=timezone.now(), result=made)

    page = as_admin.get(reverse("job", args=[job.pk])).content.decode()

    for words in ("spring", "800", "170", "91.2 %", "84.1 %", "too few to promise"):
        assert words in page


def test_what_runs_is_stopped_by_a_button(as_admin, admin):
    job = running()

    as_admin.post(reverse("stop_job", args=[job.pk]))

    job.refresh_from_db()
    page = as_admin.get(reverse("job", args=[job.pk])).content.decode()
    assert job.is_to_stop
    assert "Is being stopped" in page
    assert AuditEntry.objects.get(action="job_stopped").by == admin


def test_how_long_it_waited_and_took_is_seen_on_its_page_and_in_the_list(as_admin):
    now = timezone.now()
    put, begun = now - timedelta(hours=2), now - timedelta(hours=2) + timedelta(seconds=75)
    done = Job.objects.create(
        kind="train",
        state="done",
        put_at=put,
        started_at=begun,
        ended_at=begun + timedelta(hours=1),
    )
    never = Job.objects.create(
        kind="train", state="stopped", put_at=put, ended_at=put + timedelta(seconds=8)
    )
    waits = Job.objects.create(kind="adopt", put_at=now - timedelta(minutes=3))
    runs = running(put_at=now - timedelta(minutes=3))

    said = [" ".join(as_admin.get(reverse("job", args=[job.pk])).text.split())
            for job in (done, never, waits, runs)]  # fmt: skip

    assert "It waited 1 min 15 s and took 1 h 0 min." in said[0]
    assert "It waited 8 s and never began." in said[1]
    assert "It has waited 3 min " in said[2]
    assert "It waited 3 min 0 s and has run for " in said[3]
    listed = as_admin.get(reverse("jobs")).text
    for words in ("1 min 15 s", "1 h 0 min", "–"):
        assert f'<td class="number">{words}</td>' in listed


def test_without_a_job_one_and_many_the_list_reads_well(as_admin):
    assert "Nothing was started yet" in as_admin.get(reverse("jobs")).text

    Job.objects.create(kind="train", state="done", ended_at=timezone.now())
    one = as_admin.get(reverse("jobs")).text
    assert "Nothing was started yet" not in one
    assert 'class="pager"' not in one

    for _ in range(ON_A_PAGE):
        Job.objects.create(kind="train", state="done", ended_at=timezone.now())
    first, second = (as_admin.get(reverse("jobs"), {"page": n}).text for n in (1, 2))
    assert "Page 1 of 2" in first
    assert "Older" in first
    assert second.count('<th scope="row">') == 1
    assert "Newer" in second


def test_a_backfill_with_nothing_to_compare_says_that_instead_of_zeros(as_admin, scorer):
    as_admin.post(reverse("start_backfill"))
    for _ in range(3):
        tasks.check_waiting()

    page = as_admin.get(reverse("job", args=[Job.objects.get().pk])).text

    assert "all questions had been compared before" in page
    assert "Pairs newly flagged" not in page


def test_stopping_what_has_ended_says_so(as_admin):
    job = Job.objects.create(kind="train", state="done", ended_at=timezone.now())

    page = as_admin.post(reverse("stop_job", args=[job.pk]), follow=True).content.decode()

    assert "It had ended already" in page


def test_the_list_asks_the_database_as_often_for_many_as_for_few(
    as_admin, django_assert_num_queries
):
    for _ in range(12):
        Job.objects.create(kind="train", state="done", ended_at=timezone.now())
    as_admin.get(reverse("jobs"))

    with django_assert_num_queries(7):
        as_admin.get(reverse("jobs"))


def test_time_left_is_said_no_more_exactly_than_anybody_knows():
    assert time_left(20) == "less than a minute left"
    assert time_left(61) == "about 1 minute left"
    assert time_left(3000) == "about 50 minutes left"
    assert time_left(7400) == "about 2 hours left"


def test_times_are_said_with_two_figures_at_most():
    assert lasted(timedelta(seconds=12.4)) == "12 s"
    assert lasted(timedelta(seconds=200)) == "3 min 20 s"
    assert lasted(timedelta(hours=26, minutes=5)) == "26 h 5 min"
    assert lasted(timedelta(seconds=-1)) == "0 s"
    assert lasted(None) == "–"


def test_a_step_is_said_in_the_readers_language_with_its_figure():
    with translation.override("en"):
        assert said("training, loss 0.123") == "training, loss 0.123"
    assert said("") == ""


# --- Programs ---------------------------------------------------------------------------------


def bearer(person, scope):
    _row, secret = ApiToken.objects.issue(user=person, name="a program", scope=scope)
    return {"HTTP_AUTHORIZATION": f"Bearer {secret}"}


def post(client, path, body, headers):
    return client.post(path, body, content_type="application/json", **headers)


@pytest.mark.usefixtures("enough_verdicts")
def test_a_program_starts_a_training_and_is_told_where_to_look(client, admin):
    headers = bearer(admin, "write")

    answer = post(client, "/api/v1/jobs/", {"epochs": 2, "precision": 0.6}, headers)

    job = Job.objects.get()
    assert answer.status_code == 202
    assert answer["Location"] == f"/api/v1/jobs/{job.pk}/"
    assert answer.json()["state"] == "waiting"
    seen = client.get(answer["Location"], **headers).json()
    assert (seen["params"]["epochs"], seen["params"]["precision"]) == (2, 0.6)


def test_a_program_is_told_how_many_verdicts_are_missing(client, admin):
    answer = post(client, "/api/v1/jobs/", {}, bearer(admin, "write"))

    said = answer.json()
    assert (answer.status_code, said["code"]) == (409, "too_few_verdicts")
    assert (said["all"], said["duplicates"], said["others"]) == (400, 80, 80)
    assert not Job.objects.exists()


def test_a_token_for_reading_starts_nothing(client, admin):
    answer = post(client, "/api/v1/jobs/", {}, bearer(admin, "read"))

    assert answer.status_code == 403
    assert not Job.objects.exists()


@pytest.mark.usefixtures("enough_verdicts")
def test_the_same_key_starts_one_training(client, admin):
    headers = {**bearer(admin, "write"), "HTTP_IDEMPOTENCY_KEY": "k"}

    answers = [post(client, "/api/v1/jobs/", {}, headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert Job.objects.count() == 1


def test_a_second_training_is_refused_with_the_one_that_runs(client, admin):
    job = running()

    answer = post(client, "/api/v1/jobs/", {}, bearer(admin, "write"))

    assert answer.status_code == 409
    assert (answer.json()["code"], answer.json()["job"]) == ("job_runs", job.pk)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"epochs": 99}, "epochs"), ({"epochs": 10**30}, "epochs"), ({"minutes": -1}, "minutes"),
        ({"seed": 2**40}, "seed"), ({"name": "../up"}, "name"), ({"base": "mine"}, "base"),
        ({"precision": 2}, "precision"), ({"folder": "/etc"}, "folder"), ({"name": ""}, "name"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_at_its_field(client, admin, given, field):
    answer = post(client, "/api/v1/jobs/", given, bearer(admin, "write"))

    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert not Job.objects.exists()


@pytest.mark.usefixtures("enough_verdicts")
def test_a_program_stops_what_it_started(client, admin):
    job = starting.training(by=admin)

    answer = post(client, f"/api/v1/jobs/{job.pk}/stop/", {}, bearer(admin, "write"))

    assert answer.json()["state"] == "stopped"


def test_a_backfill_is_started_on_the_page_and_says_what_came_of_it(as_admin, scorer):
    for _ in range(2):
        QuestionFactory(title="dark lamp hums", body="")

    answer = as_admin.post(reverse("start_backfill"), follow=True)
    job = Job.objects.get(kind=Job.Kind.BACKFILL)
    assert answer.redirect_chain == [(reverse("job", args=[job.pk]), 302)]
    assert "as soon as a worker for checks looks" in answer.content.decode()
    for _ in range(3):
        tasks.check_waiting()

    shown = " ".join(as_admin.get(reverse("job", args=[job.pk])).content.decode().split())
    assert '<th scope="row">Questions compared</th><td class="number">2</td>' in shown
    assert '<th scope="row">Pairs newly flagged by that</th><td class="number">1</td>' in shown
    assert "1 pair flagged" in as_admin.get(reverse("jobs")).content.decode()


def test_a_second_backfill_leads_to_the_one_that_is_unfinished(as_admin):
    as_admin.post(reverse("start_backfill"))

    as_admin.post(reverse("start_backfill"))

    assert Job.objects.filter(kind=Job.Kind.BACKFILL).count() == 1
