import threading
from datetime import UTC, datetime
from functools import partial

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client

from dedup import flagging, pipeline
from dedup.models import Embedding, Flag, Score
from support import answering, asking, erasing, guests, merging, notifications, thread
from support.models import (
    Answer,
    AuditEntry,
    GuestRequest,
    Notification,
    Question,
    Subscription,
    User,
    Vote,
)
from tests.factories import (
    AnswerFactory,
    ProductFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
)
from tests.support.test_merging_races import raced

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def erased(person, **given):
    given.setdefault("by", person)
    return erasing.erase(person=person, **given)


class TestWhatGoes:
    def test_the_account_is_an_id_and_nothing_else(self, customer):
        customer.display_name, customer.time_zone, customer.theme = "Ann", "Asia/Tokyo", "dark"
        customer.save()

        gone = erased(customer, now=NOW)

        gone.refresh_from_db()
        assert (gone.username, gone.email, gone.display_name, gone.time_zone, gone.theme) == (
            f"erased-{customer.pk}", "", "", "", "auto",
        )  # fmt: skip
        assert (gone.is_active, gone.has_usable_password(), gone.erased_at) == (False, False, NOW)
        assert not gone.groups.exists()
        assert str(gone) == "somebody who left"

    def test_texts_say_that_they_were_erased_and_versions_go_on(self, customer):
        question = QuestionFactory(asked_by=customer, title="Secret", body="Secret", language="de")
        answer = AnswerFactory(written_by=customer, body="Secret")

        erased(customer, now=NOW)

        question.refresh_from_db()
        answer.refresh_from_db()
        assert (question.title, question.body, answer.body) == (erasing.ERASED,) * 3
        assert (question.language, question.version, question.edited_at) == ("", 2, NOW)
        assert "secret" not in str(question.words)

    def test_votes_and_subscriptions_of_theirs_go_and_those_of_others_stay(self, customer):
        vote = VoteFactory(by=customer)
        kept = VoteFactory(question=vote.question)
        SubscriptionFactory(subscriber=customer)
        follows = SubscriptionFactory(question=QuestionFactory(asked_by=customer))

        erased(customer)

        assert list(Vote.objects.all()) == [kept]
        assert list(Subscription.objects.all()) == [follows]

    def test_they_are_signed_out_everywhere(self, customer):
        browsers = [Client(), Client()]
        for browser in browsers:
            browser.force_login(customer)

        erased(customer)

        for browser in browsers:
            assert browser.get("/mine/").status_code == 302

    def test_no_browser_remembers_their_address_that_they_gave_without_signing_in(self, customer):
        browser, other = Client(), Client()
        follow = f"/questions/{QuestionFactory().pk}/follow-by-mail/"
        browser.post(follow, {"email": customer.email.upper()})
        other.post(follow, {"email": "else@example.com"})

        erased(customer)

        kept = [session.get_decoded() for session in Session.objects.all()]
        assert [one["confirm_address"] for one in kept] == ["else@example.com"]

    def test_waiting_mail_to_them_and_about_their_answers_does_not_leave(self, customer):
        question = QuestionFactory(asked_by=customer)
        follower = SubscriptionFactory(question=question).subscriber
        SubscriptionFactory(question=question, subscriber=customer)
        answering.post_answer(question=question, body="Mine", by=customer, now=NOW)
        answering.post_answer(question=question, body="Theirs", by=follower, now=NOW)
        assert Notification.objects.filter(status="waiting").count() == 2

        erased(customer)

        assert notifications.send_due(now=NOW) == 0
        assert set(Notification.objects.values_list("status", flat=True)) == {"cancelled"}


class TestWhatStays:
    def test_a_question_that_others_answered_stays_as_a_thread(self, customer, client):
        question = QuestionFactory(asked_by=customer, title="Secret")
        AnswerFactory(question=question, body="Turn it to the right.")

        erased(customer)

        page = client.get(question.get_absolute_url()).content.decode()
        assert "somebody who left" in page
        assert "Turn it to the right." in page
        assert "Secret" not in page
        assert customer.username not in page

    def test_merges_stay_and_can_be_taken_back(self, customer, admin):
        duplicate = QuestionFactory(asked_by=customer)
        edge = merging.merge(duplicate=duplicate, canonical=QuestionFactory(), by=admin)

        erased(customer)

        assert merging.broken_pointers() == []
        assert not merging.unmerge(merge=edge, by=admin).is_in_force

    def test_the_audit_trail_keeps_every_entry_and_gains_the_erasure(self, customer):
        question = asking.submit_question(
            product=ProductFactory(), title="How?", body="", audience="public", by=customer
        )
        before = list(AuditEntry.objects.order_by("pk").values())

        erased(customer)

        after = list(AuditEntry.objects.order_by("pk").values())
        assert after[: len(before)] == before
        said = [(e["action"], e["question_id"], e["details"]) for e in after[len(before) :]]
        assert said == [
            ("erased", None, {"person": customer.pk}),
            ("erased", question.pk, {"person": customer.pk}),
        ]
        assert thread.history(question)[0].action == "erased"
        with pytest.raises(DatabaseError), transaction.atomic():
            AuditEntry.objects.all().delete()

    def test_their_private_question_stays_private(self, customer, client):
        question = QuestionFactory(asked_by=customer, audience="private")

        erased(customer)

        assert client.get(question.get_absolute_url()).status_code == 404

    def test_programs_see_that_they_left(self, customer, admin, client):
        question = QuestionFactory(asked_by=customer)
        erased(customer)
        client.force_login(admin)

        told = client.get(f"/api/v1/questions/{question.pk}/").json()

        assert told["asked_by"] == f"erased-{customer.pk}"


class TestWhoMay:
    def test_admins_may_erase_others_and_nobody_else_may(self, customer, agent, admin):
        with pytest.raises(erasing.NotAllowed):
            erased(customer, by=agent)
        assert User.objects.get(pk=customer.pk).erased_at is None

        assert erased(customer, by=admin).erased_at

    def test_an_admin_may_not_erase_a_superuser(self, admin):
        root = UserFactory(is_superuser=True)

        with pytest.raises(erasing.NotAllowed):
            erased(root, by=admin)

    def test_the_last_admin_stays(self, admin):
        with pytest.raises(erasing.LastAdmin):
            erased(admin)

        UserFactory(is_superuser=True)
        assert erased(admin).erased_at

    def test_erasing_twice_changes_nothing(self, customer):
        erased(customer, now=NOW)
        entries = AuditEntry.objects.count()

        again = erased(customer, by=None)

        assert (again.erased_at, AuditEntry.objects.count()) == (NOW, entries)

    def test_a_failure_in_the_midst_changes_nothing(self, customer, monkeypatch):
        question = QuestionFactory(asked_by=customer, title="Kept")
        monkeypatch.setattr("support.erasing.audit.record", lambda *_, **__: 1 / 0)

        with pytest.raises(ZeroDivisionError), transaction.atomic():
            erased(customer)

        question.refresh_from_db()
        customer.refresh_from_db()
        assert (question.title, customer.erased_at) == ("Kept", None)


class TestTheDatabase:
    @pytest.mark.parametrize("field", ["email", "display_name", "first_name", "time_zone"])
    def test_who_left_has_nothing_left(self, customer, field):
        erased(customer)

        with pytest.raises(IntegrityError, match="user_erased_has_nothing_left"):
            User.objects.filter(pk=customer.pk).update(**{field: "a@example.com"})

    def test_who_left_is_not_let_in_again(self, customer):
        erased(customer)

        with pytest.raises(IntegrityError, match="user_erased_has_nothing_left"):
            User.objects.filter(pk=customer.pk).update(is_active=True)

    def test_nobody_asks_in_the_name_of_who_left(self, customer):
        erased(customer)

        with pytest.raises(IntegrityError, match="was erased"):
            QuestionFactory(asked_by=customer)

    def test_nobody_answers_in_the_name_of_who_left(self, customer):
        question = QuestionFactory()
        erased(customer)

        with pytest.raises(IntegrityError, match="was erased"):
            AnswerFactory(question=question, written_by=customer)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_what_is_asked_and_answered_in_the_same_moment_is_erased_or_refused(self):
        for _ in range(10):
            person, question = UserFactory(), QuestionFactory()
            given = {"product": question.product, "body": "canary", "audience": "public"}

            results = raced(
                lambda: erased(person),  # noqa: B023
                lambda: asking.submit_question(title="canary", by=person, **given),  # noqa: B023
                lambda: answering.post_answer(question=question, body="canary", by=person),  # noqa: B023
            )

            assert isinstance(results[0], User), results
            for late in results[1:]:
                assert isinstance(late, Question | Answer | IntegrityError), late
            assert not Question.objects.filter(title="canary").exists()
            assert not Answer.objects.filter(body="canary").exists()

    def test_a_check_that_was_just_writing_is_followed_by_the_erasure(
        self, scorer, monkeypatch, bells
    ):
        """The flags are written and not committed when somebody leaves: they go as well."""
        person = UserFactory()
        given = {"product": ProductFactory(), "audience": "public"}
        asking.submit_question(title="Dim the lamp?", body="Bright.", by=UserFactory(), **given)
        pipeline.check_waiting(limit=16)
        question = asking.submit_question(title="Dim the lamp?", body="Bright!", by=person, **given)
        write, threads = flagging.write, []

        def slowly(findings, *, now):
            write(findings, now=now)
            leaving = threading.Thread(target=leave)
            threads.append(leaving)
            leaving.start()
            leaving.join(0.5)
            assert leaving.is_alive()  # it waits for the locks of this transaction

        def leave():
            try:
                erased(person)
            finally:
                connection.close()

        monkeypatch.setattr(flagging, "write", slowly)
        pipeline.check_waiting(limit=16)
        threads[0].join()

        assert User.objects.get(pk=person.pk).erased_at
        assert not Embedding.objects.filter(question=question).exists()
        assert not Score.objects.exists()
        assert not Flag.objects.open().exists()
        assert set(Flag.objects.values_list("newer_hash", flat=True)) <= {""}

    def test_what_a_guest_confirms_in_the_same_moment_is_erased_or_asked_by_somebody_new(self):
        for _ in range(10):
            person = UserFactory()
            waiting = GuestRequest.objects.create(
                email=person.email, kind="question", title="canary", product=ProductFactory()
            )
            confirming = partial(guests.confirm, request=waiting, by=person, now=NOW)

            results = raced(partial(erased, person), confirming)

            assert isinstance(results[0], User), results
            assert isinstance(results[1], guests.Confirmed | guests.LinkGone), results
            assert not GuestRequest.objects.exists()
            assert not Question.objects.filter(title="canary").exists()

    def test_two_erasures_at_once_are_one(self, customer):
        results = raced(*[lambda: erased(customer, by=None)] * 3)

        assert [type(result) for result in results] == [User] * 3
        assert AuditEntry.objects.filter(action="erased").count() == 1


class TestDoors:
    def test_the_command_erases_after_the_name_was_typed_again(self, customer, monkeypatch):
        monkeypatch.setattr("builtins.input", lambda _: customer.username)

        call_command("erase_person", customer.username)

        assert User.objects.get(pk=customer.pk).erased_at

    def test_the_command_erases_nobody_by_a_slip(self, customer, monkeypatch):
        monkeypatch.setattr("builtins.input", lambda _: "yes")

        with pytest.raises(CommandError, match="Nothing was erased"):
            call_command("erase_person", customer.username)
        with pytest.raises(CommandError, match="no person"):
            call_command("erase_person", "nobody", yes=True)

        assert User.objects.get(pk=customer.pk).erased_at is None

    def test_admins_erase_from_a_list_after_they_confirmed(self, client, admin, customer):
        client.force_login(admin)
        given = {"action": "erase", "_selected_action": [customer.pk, admin.pk]}

        asked = client.post("/admin/support/user/", given)
        assert customer.username in asked.content.decode()
        assert User.objects.get(pk=customer.pk).erased_at is None

        client.post("/admin/support/user/", {**given, "confirmed": "yes"})
        assert User.objects.get(pk=customer.pk).erased_at
        assert User.objects.get(pk=admin.pk).erased_at is None  # the last admin

    def test_who_left_is_not_changed_in_the_admin(self, client, admin, customer):
        erased(customer)
        client.force_login(admin)

        answer = client.post(f"/admin/support/user/{customer.pk}/change/", {"username": "back"})

        assert answer.status_code == 403
