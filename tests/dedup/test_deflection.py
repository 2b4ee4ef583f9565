"""What came of suggestions: noted, counted, shown to admins."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from dedup import deflection, tasks
from dedup.models import Deflection
from support import outbox
from support.celery import app
from support.models import Question
from tests.factories import ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
NOW = timezone.now()
DAY = timedelta(days=1)
TYPED = {"title": "Where is the switch of it?", "body": "Dark.", "audience": "public"}


@pytest.fixture(autouse=True)
def by_words(monkeypatch):
    """No worker answers."""
    monkeypatch.setattr(outbox, "send", lambda *_args, **_kwargs: False)


def shown(count=3, asking=None, product=None, by=None, now=NOW):
    return deflection.note_shown(asking=asking, count=count, product=product, by=by, now=now)


def solved(asking, by=None, now=NOW):
    return deflection.note_solved(asking=asking, question=QuestionFactory(), by=by, now=now)


def asked(asking, *, after=(), by=None, now=NOW):
    deflection.note_asked(
        asking=asking, solved=after, question=QuestionFactory(), by=by, now=now
    )  # fmt: skip


def figures(**given):
    return deflection.figures(days=30, now=NOW + 2 * DAY, **given)


class TestNotes:
    def test_one_time_of_asking_is_one_row_with_the_most_that_was_shown_at_once(self, customer):
        fan = ProductFactory(slug="fan")
        first = shown(count=2, by=customer)
        assert shown(count=5, asking=first, product=fan, by=customer) == first
        assert shown(count=1, asking=first, by=customer) == first

        row = Deflection.objects.get()
        assert (row.shown, row.product, row.asker) == (5, fan, customer)

    def test_a_time_of_asking_that_was_dropped_meanwhile_begins_anew(self):
        gone = uuid.uuid4()

        assert shown(asking=gone) != gone
        assert Deflection.objects.count() == 1

    def test_the_first_opening_counts(self):
        asking = shown()
        deflection.note_opened(asking=asking, now=NOW)
        deflection.note_opened(asking=asking, now=NOW + DAY)

        assert Deflection.objects.get().opened_at == NOW

    def test_an_opening_of_nothing_is_nothing(self):
        deflection.note_opened(asking=None, now=NOW)

        assert not Deflection.objects.exists()

    def test_who_is_known_is_found_again_within_a_day_and_no_longer(self, customer):
        early = solved(shown(by=customer), by=customer, now=NOW - DAY - timedelta(minutes=1))
        late = solved(shown(by=customer), by=customer, now=NOW - timedelta(hours=23))
        others = solved(shown(by=UserFactory()))

        asked(None, by=customer)

        assert Deflection.objects.get(pk=late).asked_at == NOW
        for untouched in (early, others):
            assert Deflection.objects.get(pk=untouched).asked_at is None

    def test_who_has_no_account_is_known_by_the_session(self):
        mine, others = solved(shown()), solved(shown())

        asked(None, after=[mine])

        assert Deflection.objects.get(pk=mine).asked_question is not None
        assert Deflection.objects.get(pk=others).asked_question is None

    @pytest.mark.parametrize(
        "wrong",
        [
            {"shown": 0},
            {"solved_question": True},
            {"asked_question": True},
        ],
    )
    def test_the_database_refuses_a_row_that_says_nothing(self, wrong):
        given = {name: QuestionFactory() if said is True else said for name, said in wrong.items()}
        with pytest.raises(IntegrityError, match="deflection_"), transaction.atomic():
            Deflection.objects.create(**{"shown": 1, **given})

    def test_rows_are_dropped_after_a_year_by_a_task_that_beat_knows(self):
        shown(now=timezone.now() - timedelta(days=366))
        kept = shown(now=timezone.now() - timedelta(days=364))

        tasks.forget_deflections()

        assert Deflection.objects.get().pk == kept
        assert tasks.forget_deflections.name in {
            entry["task"] for entry in app.conf.beat_schedule.values()
        }


class TestFigures:
    @pytest.fixture
    def rows(self, customer):
        """Six times of asking: three solved of which one asked anyway, one asked, one silent; one
        more is about another product."""
        lamp, fan = ProductFactory(), ProductFactory(slug="fan")
        for _ in range(2):
            deflection.note_opened(asking=solved(shown(product=lamp)), now=NOW)
        anyway = solved(shown(product=lamp, by=customer), by=customer)
        asked(None, by=customer, now=NOW + timedelta(hours=2))
        assert Deflection.objects.get(pk=anyway).asked_at
        asked(shown(product=lamp))
        shown(product=lamp)
        shown(product=fan)
        return lamp, fan

    def test_each_end_is_counted_once(self, rows):
        found = figures(product=rows[0])

        assert (found.shown, found.opened, found.solved, found.asked) == (5, 2, 3, 1)
        assert (found.anyway, found.silent) == (1, 1)
        assert found.solved_rate.percent == 60
        assert (found.solved_rate.low_percent, found.solved_rate.high_percent) == (23, 88)
        assert found.anyway_rate.percent == 33

    def test_products_come_by_how_much_was_shown(self, rows):
        lamp, fan = rows
        shown()

        found = deflection.by_product(days=30, now=NOW + DAY)

        assert [(product, row.shown) for product, row in found] == [(lamp, 5), (fan, 1), (None, 1)]

    def test_what_is_older_than_the_period_is_not_counted(self):
        shown(now=NOW - 8 * DAY)

        assert deflection.figures(days=7, now=NOW).shown == 0
        assert deflection.figures(days=30, now=NOW).shown == 1

    def test_of_nothing_there_is_no_share(self, client, admin):
        client.force_login(admin)

        page = client.get(reverse("deflection")).content.decode()
        assert "Nothing was shown to anybody in this time" in page
        assert "What this cannot know" in page

    def test_the_page_has_shares_with_what_they_may_well_be(self, client, admin):
        for _ in range(12):
            solved(shown(product=ProductFactory(), now=timezone.now()), now=timezone.now())
        client.force_login(admin)

        page = client.get(f"{reverse('deflection')}?days=7&product=lamp").content.decode()
        assert "100 %" in page
        assert "76 to 100 %" in page
        assert client.get(f"{reverse('deflection')}?days=8").context["days"] == 30


class TestPages:
    @pytest.fixture
    def known(self, client, customer):
        client.force_login(customer)
        return QuestionFactory(title="Where is the switch?")

    def type_(self, client, **given):
        return client.post(reverse("similar"), {**TYPED, "product": "", **given})

    def test_typing_and_asking_leaves_one_row_without_a_word_of_it(self, client, customer, known):
        lamp = known.product
        self.type_(client)
        self.type_(client, title=TYPED["title"] + " It", product=lamp.pk)
        client.post(reverse("opened"))
        client.post(reverse("ask"), TYPED | {"product": lamp.pk, "seen_similar": "1"})

        row = Deflection.objects.get()
        assert (row.asker, row.product, row.shown) == (customer, lamp, 1)
        assert row.opened_at
        assert row.asked_question == Question.objects.get(title=TYPED["title"])
        assert row.solved_at is None
        kept = {field.get_internal_type() for field in Deflection._meta.concrete_fields}
        assert not kept & {"CharField", "TextField", "JSONField"}

    def test_without_an_account_the_session_knows_who_asked_after_all(self, client):
        known = QuestionFactory(title="Where is the switch?")
        self.type_(client)
        client.post(reverse("solved"), {"question": known.pk})
        given = {"product": known.product_id, "email": "guest@example.com", "seen_similar": "1"}
        client.post(reverse("ask"), TYPED | given)

        row = Deflection.objects.get()
        assert row.asker is None
        assert row.asked_question is None  # not before the address is confirmed
        assert row.asked_at
        assert deflection.figures(days=7, now=timezone.now()).anyway == 1

    def test_nothing_found_is_no_row(self, client, customer):
        client.force_login(customer)
        self.type_(client)

        assert not Deflection.objects.exists()

    def test_this_solved_it_thanks_and_leads_to_the_question(self, client, known):
        self.type_(client)
        page = client.post(reverse("solved"), {"question": known.pk}, follow=True)

        assert page.redirect_chain == [(known.get_absolute_url(), 302)]
        assert "thank you for saying so" in page.content.decode()
        assert "data-draft-of" in page.content.decode()
        assert Deflection.objects.get().solved_question == known

    def test_asking_after_all_counts_as_such_and_a_new_text_as_a_new_time(self, client, known):
        self.type_(client)
        client.post(reverse("solved"), {"question": known.pk})
        self.type_(client)
        client.post(reverse("ask"), TYPED | {"product": known.product_id, "seen_similar": "1"})

        found = deflection.figures(days=7, now=timezone.now())
        assert (found.shown, found.solved, found.asked, found.anyway) == (2, 1, 1, 1)

    def test_a_second_step_counts_as_shown(self, client, known):
        client.post(reverse("ask"), TYPED | {"product": known.product_id})
        assert Deflection.objects.get().shown == 1
        client.post(reverse("ask"), TYPED | {"product": known.product_id, "seen_similar": "1"})

        assert Deflection.objects.get().asked_question

    @pytest.mark.parametrize("pk", ["private", "0", "", "x", "²", "9" * 30])
    def test_what_one_may_not_read_has_solved_nothing(self, client, known, pk):
        private = QuestionFactory(audience="private")
        given = {"question": private.pk if pk == "private" else pk}

        assert client.post(reverse("solved"), given).status_code == 404
        assert not Deflection.objects.exists()

    @pytest.mark.parametrize("product", ["x", "9" * 30, "²", "-1"])
    def test_a_product_that_is_none_is_no_product(self, client, known, product):
        assert self.type_(client, product=product).status_code == 200
        assert Deflection.objects.get().product is None

    def test_a_session_keeps_ids_only(self, client, known):
        self.type_(client)
        client.post(reverse("solved"), {"question": known.pk})

        kept = Session.objects.get().get_decoded()
        assert kept["solved"] == [str(Deflection.objects.get().pk)]
        assert "switch" not in str({key: kept[key] for key in kept if key != "_messages"})
