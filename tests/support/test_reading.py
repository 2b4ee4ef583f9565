from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from support import reading
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def question():
    return QuestionFactory(asked_at=NOON)


def shown(client, question):
    return client.get(question.get_absolute_url()).content.decode()


def test_times_go_by_the_clock_that_a_person_chose(client, customer, question):
    customer.time_zone = "Asia/Tokyo"
    customer.save()
    client.force_login(customer)
    client.cookies["zone"] = "Europe/Berlin"

    page = shown(client, question)

    assert '<time datetime="2026-07-01T21:00:00+09:00"' in page


@pytest.mark.parametrize("role", ["guest", "customer"])
def test_without_a_choice_they_go_by_the_browsers_clock(client, request, question, role):
    if role != "guest":
        client.force_login(request.getfixturevalue(role))
    client.cookies["zone"] = "Europe/Berlin"

    assert '<time datetime="2026-07-01T14:00:00+02:00"' in shown(client, question)


@pytest.mark.parametrize(
    "odd", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Factory", "x" * 5000, "é"]
)
def test_a_clock_that_nobody_knows_counts_for_nothing(client, question, odd):
    client.cookies["zone"] = odd

    assert '<time datetime="2026-07-01T12:00:00+00:00"' in shown(client, question)


def test_a_zone_that_is_no_more_is_passed_over(client, customer, question):
    customer.time_zone = "Mars/Olympus"
    customer.save()
    client.force_login(customer)

    assert '<time datetime="2026-07-01T12:00:00+00:00"' in shown(client, question)


def test_programs_get_their_times_as_before(client, customer, question):
    customer.time_zone = "Asia/Tokyo"
    customer.save()
    client.force_login(customer)

    told = client.get(f"/api/v1/questions/{question.pk}/").json()

    assert told["asked_at"] == "2026-07-01T12:00:00Z"


def test_a_person_reads_in_the_language_they_chose(client, customer, settings):
    settings.LANGUAGES = [("en", "English"), ("ar", "Arabic")]
    customer.language = "ar"
    customer.save()
    client.force_login(customer)

    assert '<html lang="ar" dir="rtl"' in client.get("/").content.decode()
    assert client.get("/")["Content-Language"] == "ar"
    client.logout()
    assert '<html lang="en" dir="ltr"' in client.get("/").content.decode()


def test_the_language_chosen_below_a_page_is_the_accounts_from_then_on(client, customer):
    customer.language = "en"
    customer.save()
    client.force_login(customer)

    page = client.post("/language/", {"language": "de", "next": "/"}, follow=True)

    assert '<html lang="de"' in page.content.decode()
    customer.refresh_from_db()
    assert customer.language == "de"
    client.post("/language/", {"language": "tlh", "next": "/"})
    customer.refresh_from_db()
    assert customer.language == "de"


def test_a_language_that_the_site_no_longer_speaks_is_passed_over(client, customer):
    customer.language = "tlh"
    customer.save()
    client.force_login(customer)

    assert '<html lang="en"' in client.get("/").content.decode()


def test_every_zone_that_can_be_chosen_is_one():
    assert len(reading.zones()) > 300
    for name in reading.zones():
        assert ZoneInfo(name).key == name
