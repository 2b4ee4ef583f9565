import re
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone
from rest_framework.test import APIClient

from support import api, asking, merging
from support.models import Answer, ApiToken, IdempotencyRecord, OutboxEntry, Question
from support.tasks import tidy
from tests.factories import AnswerFactory, ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
QUESTIONS = "/api/v1/questions/"


def as_(person):
    client = APIClient()
    client.force_authenticate(person)
    return client


def with_token(person, **given):
    _, secret = ApiToken.objects.issue(user=person, name="script", **given)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


@pytest.fixture
def lamp():
    return ProductFactory()


def asked(**changes):
    return {"product": "lamp", "title": "How do I dim it?", "body": "Too bright."} | changes


class TestWhoCalls:
    def test_a_token_acts_as_its_person(self, lamp, customer):
        answer = with_token(customer).post(QUESTIONS, asked())

        assert answer.status_code == 201
        assert Question.objects.get().asked_by == customer

    @pytest.mark.parametrize("header", ["", "Bearer ask_guessed", "Bearer \xff", "Basic Zm9v"])
    def test_who_does_not_say_who_they_are_is_asked_for_a_token(self, header):
        answer = APIClient(HTTP_AUTHORIZATION=header).get(QUESTIONS)

        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Bearer"
        assert answer["Content-Type"] == "application/problem+json"

    def test_an_expired_token_is_refused(self, customer):
        client = with_token(customer)
        ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

        answer = client.get(QUESTIONS)

        assert answer.status_code == 401
        assert answer.json()["code"] == "authentication_failed"
        assert answer.json()["detail"] == "This token is not valid."

    def test_what_follows_a_token_belongs_to_it_and_makes_it_another(self, customer):
        _, secret = ApiToken.objects.issue(user=customer, name="script")

        answer = APIClient(HTTP_AUTHORIZATION=f"Bearer {secret} more").get(QUESTIONS)

        assert (answer.status_code, answer.json()["code"]) == (401, "authentication_failed")

    def test_the_token_of_somebody_who_left_is_refused(self, customer):
        client = with_token(customer)
        customer.is_active = False
        customer.save()

        assert client.get(QUESTIONS).status_code == 401

    def test_a_session_needs_its_csrf_token_to_write(self, lamp, customer):
        client = APIClient(enforce_csrf_checks=True)
        client.force_login(customer)

        assert client.get(QUESTIONS).status_code == 200
        assert client.post(QUESTIONS, asked()).status_code == 403
        client.cookies["csrftoken"] = "a" * 32
        assert client.post(QUESTIONS, asked(), HTTP_X_CSRFTOKEN="a" * 32).status_code == 201

    def test_a_token_for_reading_reads_and_writes_nothing(self, lamp, admin):
        client = with_token(admin, scope="read")
        question = QuestionFactory(asked_by=admin)
        address = f"{QUESTIONS}{question.pk}/"

        assert client.get(address).status_code == 200
        assert client.post("/api/v1/similar/", {"title": "dim"}).status_code == 200
        for answer in (
            client.post(QUESTIONS, asked()),
            client.patch(address, {"title": "Mine"}),
            client.post(f"{address}answers/", {"body": "Turn it."}),
            client.post("/api/v1/flags/1/reviews/", {"verdict": "dismissed"}),
            client.post("/api/v1/merges/", {}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "read_only_token")
        assert Question.objects.count() == 1

    @pytest.mark.parametrize(("given", "scope"), [([], "read"), (["--scope", "write"], "write")])
    def test_a_new_token_writes_only_where_that_is_said(self, customer, given, scope):
        call_command("create_token", customer.username, "import", *given)

        assert ApiToken.objects.get().scope == scope

    def test_a_token_is_shown_once_and_only_its_hash_is_kept(self, customer, capsys):
        call_command("create_token", customer.username, "import", "--days", "7")

        secret = capsys.readouterr().out.strip()
        token = ApiToken.objects.get()
        assert re.fullmatch(r"ask_[\w-]{43}", secret)  # 32 random bytes
        assert secret not in str(vars(token))
        assert token.name == "import"
        assert timedelta(days=6) < token.expires_at - timezone.now() <= timedelta(days=7)
        client = APIClient(HTTP_AUTHORIZATION=f"Bearer {secret}")
        assert client.get(QUESTIONS).status_code == 200

    @pytest.mark.parametrize("given", [["nobody", "x"], ["somebody", "x", "--days", "0"]])
    def test_no_token_is_made_for_nobody_or_for_no_time(self, given):
        UserFactory(username="somebody")

        with pytest.raises(CommandError):
            call_command("create_token", *given)

        assert not ApiToken.objects.exists()


class TestQuestions:
    def test_asking_stores_a_question_that_waits_for_its_check(self, lamp, customer):
        answer = as_(customer).post(QUESTIONS, asked(audience="private"))

        question = Question.objects.get()
        assert answer.status_code == 201
        assert answer.json()["id"] == question.pk
        assert answer.json()["canonical"] is None
        assert question.audience == "private"
        assert OutboxEntry.objects.waiting().filter(question=question).exists()

    def test_a_body_may_be_left_out_and_a_question_is_public(self, lamp, customer):
        answer = as_(customer).post(QUESTIONS, {"product": "lamp", "title": "Why?"})

        assert (answer.json()["body"], answer.json()["audience"]) == ("", "public")

    def test_the_list_shows_what_the_caller_may_read_and_nothing_else(self, customer, agent):
        public = QuestionFactory()
        mine = QuestionFactory(audience="private", asked_by=customer)
        hidden = QuestionFactory(audience="private")

        def listed(person):
            return {row["id"] for row in as_(person).get(QUESTIONS).json()["results"]}

        assert listed(customer) == {public.pk, mine.pk}
        assert listed(agent) == {public.pk, mine.pk, hidden.pk}

    def test_a_private_question_and_a_missing_one_get_the_same_answer(self, customer):
        hidden = QuestionFactory(audience="private")

        private = as_(customer).get(f"{QUESTIONS}{hidden.pk}/")
        missing = as_(customer).get(f"{QUESTIONS}{hidden.pk + 1}/")

        assert private.status_code == missing.status_code == 404
        assert {**private.json(), "request_id": ""} == {**missing.json(), "request_id": ""}

    def test_a_duplicate_names_its_canonical(self, customer, admin):
        canonical, duplicate = QuestionFactory(), QuestionFactory()
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

        answer = as_(customer).get(f"{QUESTIONS}{duplicate.pk}/")

        assert answer.json()["canonical"] == f"{QUESTIONS}{canonical.pk}/"

    def test_pages_follow_a_cursor_through_all_rows_each_once(self, customer):
        rows = QuestionFactory.create_batch(60, asked_by=customer)
        client = as_(customer)
        seen, address = [], QUESTIONS
        while address:
            page = client.get(address).json()
            seen += [row["id"] for row in page["results"]]
            if len(seen) == 50:
                QuestionFactory(asked_by=customer)  # asked meanwhile: moves nothing
            address = page["next"]

        assert seen == sorted((row.pk for row in rows), reverse=True)

    def test_filters_narrow_the_list_and_an_unknown_value_is_refused(self, customer):
        QuestionFactory()
        other = QuestionFactory(product=ProductFactory(slug="desk", name="Desk"))

        found = as_(customer).get(QUESTIONS, {"product__slug": "desk"}).json()["results"]
        refused = as_(customer).get(QUESTIONS, {"audience": "everybody"})

        assert [row["id"] for row in found] == [other.pk]
        assert (refused.status_code, refused.json()["field"]) == (400, "audience")

    def test_the_list_takes_the_same_few_queries_however_long_it_is(
        self, customer, admin, django_assert_num_queries
    ):
        canonical = QuestionFactory()
        for duplicate in QuestionFactory.create_batch(10):
            merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
        client = as_(customer)
        client.get(QUESTIONS)

        with django_assert_num_queries(1):
            rows = client.get(QUESTIONS).json()["results"]

        assert sum(row["canonical"] is not None for row in rows) == 10


class TestEditing:
    def edit(self, person, question, given, **headers):
        return as_(person).patch(f"{QUESTIONS}{question.pk}/", given, **headers)

    def test_the_asker_changes_what_is_given_and_the_rest_stays(self, customer):
        question = QuestionFactory(asked_by=customer, body="As it was.")

        answer = self.edit(customer, question, {"title": "How do I dim it?"}, HTTP_IF_MATCH='"1"')

        question.refresh_from_db()
        assert answer.status_code == 200
        assert answer.json()["version"] == question.version == 2
        assert (question.title, question.body) == ("How do I dim it?", "As it was.")

    @pytest.mark.parametrize("header", ['"1"', "1", 'W/"1"', '"x"', '"' + "9" * 5000 + '"', '"²"'])
    def test_a_stale_edit_is_told_what_changed(self, customer, header):
        question = QuestionFactory(asked_by=customer, version=2)

        answer = self.edit(customer, question, {"title": "Late"}, HTTP_IF_MATCH=header)

        assert answer.status_code == 409
        assert answer.json()["code"] == "stale"
        assert answer.json()["changed"] == [question.pk]

    @pytest.mark.parametrize("headers", [{}, {"HTTP_IF_MATCH": "*"}])
    def test_an_edit_that_names_no_version_takes_what_is_there(self, customer, headers):
        question = QuestionFactory(asked_by=customer, version=2)

        assert self.edit(customer, question, {"title": "Now"}, **headers).status_code == 200

    def test_nobody_changes_the_question_of_another(self, customer, agent):
        question, hidden = QuestionFactory(), QuestionFactory(audience="private")

        assert self.edit(customer, question, {"title": "Mine"}).status_code == 403
        assert self.edit(agent, question, {"title": "Mine"}).status_code == 403
        assert self.edit(customer, hidden, {"title": "Mine"}).status_code == 404

    def test_who_may_read_a_merged_question_cannot_change(self, customer, admin):
        question = QuestionFactory(asked_by=customer)
        merging.merge(duplicate=question, canonical=QuestionFactory(), by=admin)

        answer = self.edit(customer, question, {"audience": "private"})

        assert (answer.status_code, answer.json()["code"]) == (409, "merged")

    def test_the_product_is_not_among_what_can_be_changed(self, customer):
        question = QuestionFactory(asked_by=customer)

        answer = self.edit(customer, question, {"product": "desk"})

        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")

    @pytest.mark.parametrize("method", ["put", "delete"])
    def test_a_question_is_neither_replaced_nor_deleted(self, customer, method):
        question = QuestionFactory(asked_by=customer)

        answer = getattr(as_(customer), method)(f"{QUESTIONS}{question.pk}/")

        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


class TestAnswers:
    def test_a_thread_has_the_answers_of_its_duplicates_oldest_first(self, customer, admin):
        canonical, duplicate = QuestionFactory(), QuestionFactory()
        first, second = AnswerFactory(question=duplicate), AnswerFactory(question=canonical)
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

        rows = as_(customer).get(f"{QUESTIONS}{canonical.pk}/answers/").json()["results"]

        assert [row["id"] for row in rows] == [first.pk, second.pk]
        assert [row["question"] for row in rows] == [duplicate.pk, canonical.pk]

    def test_a_reply_to_a_duplicate_goes_to_its_canonical(self, customer, admin):
        canonical, duplicate = QuestionFactory(), QuestionFactory()
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

        answer = as_(customer).post(f"{QUESTIONS}{duplicate.pk}/answers/", {"body": "Turn it."})

        assert answer.status_code == 201
        assert answer.json()["question"] == canonical.pk

    def test_nobody_answers_or_reads_the_answers_of_what_they_may_not_see(self, customer):
        hidden = AnswerFactory(question__audience="private").question
        address = f"{QUESTIONS}{hidden.pk}/answers/"

        assert as_(customer).get(address).status_code == 404
        assert as_(customer).post(address, {"body": "Hello?"}).status_code == 404
        assert Answer.objects.count() == 1

    def test_the_list_of_answers_takes_the_same_few_queries_however_long_it_is(
        self, customer, django_assert_num_queries
    ):
        question = QuestionFactory()
        AnswerFactory.create_batch(10, question=question)
        client = as_(customer)
        client.get(f"{QUESTIONS}{question.pk}/answers/")

        with django_assert_num_queries(2):
            client.get(f"{QUESTIONS}{question.pk}/answers/")


class TestErrors:
    def test_an_error_has_a_code_its_fields_and_a_request_id(self, lamp, customer):
        answer = as_(customer).post(QUESTIONS, asked(title=" ", product="unknown"))

        said = answer.json()
        assert answer["Content-Type"] == "application/problem+json"
        assert (said["status"], said["title"], said["type"]) == (400, "Bad Request", "about:blank")
        assert {(row["field"], row["code"]) for row in said["errors"]} == {
            ("title", "blank"),
            ("product", "does_not_exist"),
        }
        assert len(said["request_id"]) == 36

    @pytest.mark.parametrize("address", ["/api/v1/", "/api/v1/nothing/", "/api/v1/questions/x/"])
    def test_an_address_that_is_none_gets_problem_details_too(self, customer, address):
        answer = as_(customer).get(address)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer["Content-Type"] == "application/problem+json"

    def test_only_json_is_read_and_written(self, customer):
        form = as_(customer).post(QUESTIONS, {"title": "x"}, format="multipart")
        page = as_(customer).get(QUESTIONS, HTTP_ACCEPT="text/html")

        assert (form.status_code, form.json()["code"]) == (415, "unsupported_media_type")
        assert (page.status_code, page.json()["code"]) == (406, "not_acceptable")

    @pytest.mark.parametrize("cursor", ["x", "cD1hYmM=", "cD0A", "cD05OTk5OTk5OTk5OTk5OTk5OTk5"])
    def test_a_cursor_that_is_none_of_ours_is_not_found(self, customer, cursor):
        assert as_(customer).get(QUESTIONS, {"cursor": cursor}).status_code == 404


class TestIdempotency:
    def post(self, person, given, key="k1", address=QUESTIONS):
        return as_(person).post(address, given, HTTP_IDEMPOTENCY_KEY=key)

    def test_the_same_key_and_body_get_the_same_answer_and_write_once(self, lamp, customer):
        first, again = self.post(customer, asked()), self.post(customer, asked())

        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
        assert "Idempotent-Replayed" not in first
        assert again["Idempotent-Replayed"] == "true"
        assert Question.objects.count() == 1

    def test_the_same_key_for_another_body_is_refused(self, lamp, customer):
        self.post(customer, asked())

        answer = self.post(customer, asked(title="Something else"))

        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
        assert Question.objects.count() == 1

    def test_the_same_key_for_another_address_is_refused(self, lamp, customer):
        one, other = QuestionFactory.create_batch(2)
        given = {"body": "Turn it."}
        self.post(customer, given, address=f"{QUESTIONS}{one.pk}/answers/")

        answer = self.post(customer, given, address=f"{QUESTIONS}{other.pk}/answers/")

        assert answer.status_code == 409
        assert Answer.objects.count() == 1

    def test_two_people_may_use_the_same_key(self, lamp, customer, agent):
        assert self.post(customer, asked()).status_code == 201
        assert self.post(agent, asked()).status_code == 201
        assert Question.objects.count() == 2

    def test_an_error_is_not_remembered(self, lamp, customer):
        assert self.post(customer, asked(title="")).status_code == 400

        assert self.post(customer, asked()).status_code == 201

    def test_an_edit_is_repeated_without_a_second_version(self, customer):
        question = QuestionFactory(asked_by=customer)
        for _ in range(2):
            answer = as_(customer).patch(
                f"{QUESTIONS}{question.pk}/", {"title": "Once"},
                HTTP_IF_MATCH="1", HTTP_IDEMPOTENCY_KEY="k",
            )  # fmt: skip
            assert (answer.status_code, answer.json()["version"]) == (200, 2)

    def test_a_key_is_forgotten_with_its_day(self, lamp, customer):
        self.post(customer, asked())
        IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))

        tidy()

        assert not IdempotencyRecord.objects.exists()

    def test_a_key_of_any_length_or_none_is_answered(self, lamp, customer):
        assert self.post(customer, asked(), key="k" * 201).json()["field"] == "Idempotency-Key"
        assert self.post(customer, asked(), key="k" * 200).status_code == 201
        assert self.post(customer, asked(), key="").status_code == 201

    @pytest.mark.django_db(transaction=True)
    def test_a_crash_after_the_write_leaves_neither_row_nor_key(
        self, lamp, customer, bells, monkeypatch
    ):
        def crash(*_args, **_kwargs):
            raise OperationalError("the database went away")

        monkeypatch.setattr(api, "_plain", crash)
        answer = self.post(customer, asked())

        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert not Question.objects.exists()
        assert not IdempotencyRecord.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_twenty_at_once_make_one_question_and_all_hear_of_it(self, lamp, customer, bells):
        start, answers = threading.Barrier(20), []

        def ask():
            start.wait()
            try:
                answers.append(self.post(customer, asked()))
            finally:
                connection.close()

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [answer.status_code for answer in answers] == [201] * 20
        assert {answer.json()["id"] for answer in answers} == {Question.objects.get().pk}

    @pytest.mark.django_db(transaction=True)
    def test_a_write_with_a_key_is_tried_again_after_a_deadlock(
        self, lamp, customer, bells, monkeypatch
    ):
        tries, submit = [], asking.submit_question

        def deadlock_once(**given):
            tries.append(given)
            if len(tries) == 1:
                with connection.cursor() as cursor:
                    cursor.execute("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$")
            return submit(**given)

        monkeypatch.setattr(asking, "submit_question", deadlock_once)

        answer = self.post(customer, asked())

        assert (answer.status_code, len(tries)) == (201, 2)
        assert Question.objects.count() == 1


class TestDescription:
    def test_the_description_is_valid_and_made_without_a_warning(self, capsys):
        call_command("spectacular", "--validate", "--fail-on-warn", skip_checks=True)

        assert "openapi: 3.1" in capsys.readouterr().out

    def test_every_operation_tells_its_answers_and_its_refusals(self, client):
        found = client.get("/api/v1/schema/?format=json").json()
        operations = [
            (path, method, operation)
            for path, methods in found["paths"].items()
            for method, operation in methods.items()
        ]

        assert len(operations) > 15
        for path, method, operation in operations:
            statuses = set(operation["responses"])
            assert statuses & {"200", "201", "202"}, (path, method)
            assert statuses >= {"400", "401", "403"}, (path, method)
            assert operation["security"], (path, method)
            for status in statuses & {"200", "201"}:
                assert operation["responses"][status]["content"], (path, method)

    def test_a_page_shows_the_description(self, client):
        page = client.get("/api/v1/docs/")

        assert page.status_code == 200
        assert "swagger-ui" in page.content.decode()
        assert "<script>" not in page.content.decode()  # the policy would not run it
