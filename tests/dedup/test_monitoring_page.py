import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dedup import timing, watching
from dedup.models import Delivery, Worker
from dedup.timing import Stage
from dedup.views.monitoring import duration
from support import outbox
from support.models import OutboxEntry
from tests.dedup.watched import live_a_while
from tests.factories import QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def now():
    return timezone.now()


def opened(client, admin, address):
    client.force_login(admin)
    return client.get(address).content.decode()


def rows(page):
    """The text of each row of all tables, its cells parted by a bar."""
    found = re.findall(r"(?s)<tr>(.*?)</tr>", page)
    cells = [re.findall(r"(?s)<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]
    return [
        "|".join(" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row) for row in cells
    ]


def test_an_empty_portal_says_that_there_is_nothing_yet(client, admin):
    page = opened(client, admin, reverse("monitoring"))

    assert "Nothing was measured in this time" in page
    assert "No worker was seen within a week." in page
    assert "Nothing was decided in this time." in page
    assert "No release is in service." in page
    assert "No bound was crossed so far." in page


def test_a_release_without_a_baseline_says_how_much_is_still_missing(client, admin):
    ReleaseFactory(is_active=True, activated_at=timezone.now())
    page = " ".join(opened(client, admin, reverse("monitoring")).split())

    assert "has given 2000 scores of 100 new questions. So far: 0 scores of 0 questions." in page


def test_each_figure_says_of_how_many_it_is(client, admin, agent, now):
    live_a_while(now=now, by=agent, other=admin)
    found = rows(opened(client, admin, reverse("monitoring") + "?days=90"))
    kettle = next(row for row in found if row.startswith("Product: Kettle|"))
    together = next(row for row in found if row.startswith("All questions|"))

    assert kettle.split("|")[1:4] == ["0", "540", "45"]
    assert kettle.endswith("too few")  # there was none of it at first
    assert together.split("|")[1:4] == ["4000", "1260", "105"]
    assert any(row.startswith("minilm-l6-2|70|46|66 %") for row in found), found
    assert any(row.startswith("minilm-l6-2|12|") for row in found)  # blind answers
    assert any(re.match(r"Scored\|1725\|\d+ ms\|\d+ ms$", row) for row in found), found


def test_each_row_says_by_itself_what_it_counts_and_where_there_was_none(client, admin):
    found = rows(opened(client, admin, reverse("monitoring")))

    assert "Checks without aligned words|0|none" in found
    assert "Suggestions by words alone, without a worker|0|none" in found
    assert not [row for row in found if row.startswith("of them")]


def test_of_few_it_says_that_they_are_few(client, admin):
    for _ in range(3):
        timing.note_now(Stage.WRITE, 0.1, now=timezone.now())

    found = rows(opened(client, admin, reverse("monitoring")))

    assert "Checks without aligned words|0|fewer than 10" in found


def test_what_waits_and_what_is_in_quarantine_is_seen(client, admin, now):
    outbox.put(QuestionFactory(), now=now - timedelta(minutes=7))
    given_up = QuestionFactory()
    outbox.put(given_up)
    OutboxEntry.objects.filter(question=given_up).update(quarantined_at=now)
    found = rows(opened(client, admin, reverse("monitoring")))

    assert "Questions for their check|1|7 minutes ago" in found
    assert "Questions in quarantine|1|look into it" in found


def test_a_message_can_be_sent_again(client, admin, agent, now):
    live_a_while(now=now, by=agent, other=admin)
    sent = Delivery.objects.filter(state="sent").first()
    client.force_login(admin)
    answer = client.post(reverse("redeliver", args=[sent.pk]), follow=True)

    assert "It will be sent again within a minute." in answer.content.decode()
    sent.refresh_from_db()
    assert (sent.state, sent.attempts) == ("waiting", 0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "–"), (0.0342, "34 ms"), (1.24, "1.2 s"), (75, "75 s")]
)
def test_times_are_said_as_people_read_them(seconds, words):
    assert duration(seconds) == words


def test_the_page_takes_as_many_queries_however_much_there_is(
    client, admin, agent, now, django_assert_max_num_queries
):
    live_a_while(now=now, by=agent, other=admin)
    client.force_login(admin)
    client.get(reverse("monitoring"))
    with django_assert_max_num_queries(45):
        client.get(reverse("monitoring"))


class TestWorkers:
    def test_a_worker_gives_a_sign_once_a_minute(self, now, django_assert_num_queries):
        watching.note_alive("checks@here", ["checks"], now=now)
        with django_assert_num_queries(1):
            watching.note_alive("checks@here", ["checks"], now=now + timedelta(seconds=30))
        watching.note_alive("checks@here", ["checks"], now=now + timedelta(seconds=61))

        row = Worker.objects.get()
        assert (row.started_at, row.seen_at) == (now, now + timedelta(seconds=61))

    def test_one_that_was_not_seen_for_a_week_is_forgotten(self, now):
        watching.note_alive("old@here", ["checks"], now=now - timedelta(days=8))
        watching.note_alive("new@here", ["checks"], now=now)

        assert [one.name for one in watching.workers()] == ["new@here"]
