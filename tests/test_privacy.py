"""Words that stand in a private question only are looked for wherever a stranger could look."""

import base64
import io
import json
import logging
import re
from datetime import timedelta

import pytest
import redis
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from dedup import desk, pipeline, reranking, suggesting
from dedup.models import Deflection, Draft, Embedding, Flag
from dedup.texts import text_of
from support import answering, asking, guests, mailing, merging, notifications, outbox
from support.models import (
    Answer,
    AuditEntry,
    GuestRequest,
    IdempotencyRecord,
    Merge,
    Notification,
    OutboxEntry,
    Question,
    Subscription,
    User,
)
from tests.factories import AnswerFactory, FlagFactory, ProductFactory, QuestionFactory, UserFactory
from tests.test_access import EXPECTED, MISSING

pytestmark = pytest.mark.django_db
TITLE, BODY, ANSWER, OTHER = "quokkatitle", "wombatbody", "numbatanswer", "bilbytitle"
CANARIES = (TITLE, BODY, ANSWER, OTHER)
# What a stranger types shares its rare words with the private question, but none of its canaries.
SEARCH = "velvet saxophone mouthpiece"


def as_(person):
    client = Client()
    if person:
        client.force_login(person)
    return client


def found_in(text):
    return [canary for canary in CANARIES if canary in text]


@pytest.fixture
def owner():
    return UserFactory(username="somebody")


@pytest.fixture
def hidden(owner, agent):
    """A private question with an answer, one more of the same asker, and their flag."""
    question = QuestionFactory(
        title=f"{SEARCH} {TITLE}", body=f"{SEARCH} {BODY}", audience="private", asked_by=owner
    )
    AnswerFactory(question=question, body=ANSWER, written_by=agent)
    other = QuestionFactory(title=f"{SEARCH} {OTHER}", audience="private", asked_by=owner)
    FlagFactory(older=question, newer=other)
    FlagFactory(older=QuestionFactory(title=f"{SEARCH} for sale"), newer=question)
    return question


@pytest.fixture
def merged(hidden, admin):
    """The same after its second question went into it."""
    other = Question.objects.get(title__contains=OTHER)
    return merging.merge(duplicate=other, canonical=hidden, by=admin, reason=f"Both {TITLE}")


LISTS = [
    ("get", path, {})
    for path in (
        "/", "/mine/", "/ask/", "/review/", "/review/next/", "/manage/merges/", "/admin/",
        f"/?q={SEARCH}", f"/?q={SEARCH}&state=open", "/?state=answered", "/?product=lamp",
        f"/?q={SEARCH}&page=2", "/?language=en", "/manage/deflection/",
        "/api/v1/schema/", "/api/v1/questions/", "/api/v1/flags/", "/api/v1/reviews/",
        "/api/v1/merges/", "/api/v1/releases/",
    )
]  # fmt: skip


def about_text(question):
    """Asking something like it."""
    form = {"title": SEARCH, "body": SEARCH, "audience": "public", "product": question.product_id}
    return [("post", "/ask/", form), ("post", "/ask/similar/", form),
            ("post", "/api/v1/similar/", {"title": SEARCH, "body": SEARCH})]  # fmt: skip


def about_question(pk, answer_pk, other_pk):
    """All that can be asked about one question, by its id."""
    form = {"body": "x", "title": "x", "on": "1"}
    pages = ["", "edit/", f"?duplicate={pk}"]
    posts = ["answer", "edit", "vote", "follow", "follow-by-mail", "different",
             f"accept/{answer_pk}"]  # fmt: skip
    api = f"/api/v1/questions/{pk}/"
    return [
        *(("get", f"/questions/{pk}/{tail}", {}) for tail in pages),
        *(("post", f"/questions/{pk}/{tail}/", form) for tail in posts),
        ("post", "/ask/solved/", {"question": pk}),
        ("get", f"/manage/merge/{pk}/{other_pk}/", {}),
        ("get", f"/admin/support/question/{pk}/change/", {}),
        ("get", api, {}), ("patch", api, {"title": "x"}),
        ("get", f"{api}answers/", {}), ("post", f"{api}answers/", {"body": "x"}),
    ]  # fmt: skip


def about_rows():
    """All that can be asked about the rows around it."""
    for pk in Answer.objects.values_list("pk", flat=True):
        yield "post", f"/answers/{pk}/vote/", {"on": "1"}
    for pk in Flag.objects.values_list("pk", flat=True):
        yield "get", f"/review/{pk}/", {}
        yield "post", f"/review/{pk}/decide/", {"verdict": "x"}
        yield "get", f"/api/v1/flags/{pk}/", {}
    for pk in Merge.objects.values_list("pk", flat=True):
        yield "get", f"/manage/unmerge/{pk}/", {}
        yield "get", f"/api/v1/merges/{pk}/", {}


def everything(client, question):
    """All that every route says to a person: in lists and searches, and about the private rows."""
    ids = [*Question.objects.filter(audience="private").values_list("pk", flat=True), MISSING]
    asked = [*LISTS, *about_text(question), *about_rows()]
    for pk in ids:
        asked += about_question(pk, question.answers.first().pk, question.pk)
    texts = []
    for method, path, given in asked:
        kind = {"content_type": "application/json"} if path.startswith("/api/") and given else {}
        answer = getattr(client, method)(path, given, **kind)
        headers = " ".join(f"{name}: {value}" for name, value in answer.items())
        texts.append(f"{headers}\n{answer.content.decode()}")
    return "\n".join(texts)


class TestPages:
    @pytest.mark.parametrize("role", ["guest", "customer"])
    @pytest.mark.parametrize("state", ["hidden", "merged"])
    def test_strangers_read_nothing_of_it_anywhere(self, request, role, state):
        request.getfixturevalue(state)
        question = Question.objects.get(title__contains=TITLE)
        person = None if role == "guest" else request.getfixturevalue("customer")

        text = everything(as_(person), question)

        assert found_in(text) == []
        assert "for sale" in text  # the public question with the same words is found
        assert "somebody" not in text  # who asked

    @pytest.mark.parametrize("role", ["owner", "agent", "admin"])
    def test_its_asker_and_agents_do(self, request, hidden, role):
        """Else the test above proves nothing."""
        text = everything(as_(request.getfixturevalue(role)), hidden)

        assert set(found_in(text)) == set(CANARIES)

    def test_the_sweep_visits_every_route_of_the_portal(self):
        """A new route with rows has to be added to `everything`, and then here."""
        assert {route for route, methods in EXPECTED.items() if "private" in methods["GET"]} == {
            "question", "edit_question", "answer", "vote", "follow", "guest_follow", "answer_vote",
            "accept",
            "dispute", "api:question-detail", "api:question-answers",
        }  # fmt: skip

    def test_pages_are_the_same_whether_it_exists_or_not(self, customer, owner):
        """Neither a count nor a page's number betrays it."""
        QuestionFactory(title=f"{SEARCH} for sale")
        paths = ("/", f"/?q={SEARCH}", "/?product=lamp", "/?state=open", "/mine/",
                 "/api/v1/questions/", "/api/v1/questions/?product__slug=lamp")  # fmt: skip
        client = as_(customer)

        def seen():
            pages = [client.get(path).content.decode() for path in paths]
            return [re.sub(r"\b\w{64}\b", "", page) for page in pages]  # without CSRF tokens

        before = seen()
        question = QuestionFactory(title=f"{SEARCH} {TITLE}", audience="private", asked_by=owner)
        AnswerFactory(question=question)

        assert seen() == before

    def test_who_followed_a_question_sees_it_no_more_once_it_is_private(self, customer, owner):
        question = QuestionFactory(title=TITLE, asked_by=owner)
        answering.set_following(question=question, by=customer, wanted=True)
        assert TITLE in as_(customer).get("/mine/").content.decode()

        asking.edit_question(
            question=question, title=TITLE, body="", audience="private", by=owner, seen=1
        )

        assert TITLE not in as_(customer).get("/mine/").content.decode()

    @pytest.fixture
    def lost(self, owner, admin, hidden):
        """A public duplicate whose canonical is private: no code makes one, old rows may be so."""
        duplicate = QuestionFactory(title="A public one", asked_by=owner)
        canonical = QuestionFactory(title=OTHER, asked_by=owner)
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
        Question.objects.filter(pk=canonical.pk).update(audience="private")
        return duplicate

    @pytest.mark.parametrize("role", ["guest", "customer"])
    def test_a_duplicate_does_not_name_a_canonical_that_one_may_not_see(self, request, lost, role):
        person = None if role == "guest" else request.getfixturevalue("customer")
        canonical = lost.canonical_id

        page = as_(person).get(f"/questions/{lost.pk}/")
        said = as_(request.getfixturevalue("customer")).get(f"/api/v1/questions/{lost.pk}/").json()

        assert page.status_code == 200
        assert "A public one" in page.content.decode()
        assert found_in(page.content.decode()) == []
        assert f"/questions/{canonical}/" not in page.content.decode()
        assert said["canonical"] is None
        found = as_(person).get("/?q=A public one").content.decode()
        assert found_in(found) == []

    def test_a_reply_to_it_stays_where_its_writer_can_read_it(self, lost, customer):
        as_(customer).post(f"/questions/{lost.pk}/answer/", {"body": "I know."})

        assert lost.answers.get().body == "I know."


class TestSuggestions:
    def test_what_one_may_not_see_takes_no_place_among_the_candidates(
        self, scorer, customer, owner, monkeypatch
    ):
        """Filtered before it is ranked and cut: forty nearer private questions hide nothing."""
        for number in range(40):
            QuestionFactory(title=f"{SEARCH} {number}", audience="private", asked_by=owner)
        public = QuestionFactory(title=f"{SEARCH} and a stand to put it on")
        self.embed(scorer, Question.objects.all())
        judged = []
        judge = scorer.judge
        monkeypatch.setattr(scorer, "judge", lambda pairs, cosines: judged.extend(pairs)
                            or judge(pairs, cosines))  # fmt: skip

        for reader in (customer, None):
            draft = Draft.objects.create(
                pk=f"00000000-0000-4000-8000-{reader.pk if reader else 0:012}",
                text=SEARCH, reader=reader,
            )  # fmt: skip
            reranking.answer(str(draft.pk))

            draft.refresh_from_db()
            assert (draft.near, draft.found) == ([public.pk], [public.pk])
        assert len(judged) == 2  # the others were not even scored

    def test_words_alone_find_no_more(self, customer, owner, monkeypatch):
        monkeypatch.setattr(outbox, "send", lambda *_args, **_options: False)
        for number in range(20):
            QuestionFactory(title=f"{SEARCH} {number}", audience="private", asked_by=owner)
        public = QuestionFactory(title=f"A stand for a {SEARCH}")

        for reader in (customer, AnonymousUser()):
            assert suggesting.similar(title=SEARCH, reader=reader).questions == [public]

    def test_no_related_question_names_it(self, scorer, customer, owner, agent):
        public = QuestionFactory(title=f"{SEARCH} for sale")
        hidden = QuestionFactory(
            title=f"{SEARCH} {TITLE}", body=BODY, audience="private", asked_by=owner
        )
        self.embed(scorer, Question.objects.all())

        for reader in (None, customer):
            page = as_(reader).get(public.get_absolute_url()).content.decode()
            assert found_in(page) == []
            assert hidden.get_absolute_url() not in page
            assert "Related questions" not in page
        for reader in (owner, agent):  # else this proves nothing
            assert TITLE in as_(reader).get(public.get_absolute_url()).content.decode()

    def test_no_snippet_has_the_answer_of_a_private_question(self, hidden, customer, agent):
        public = QuestionFactory(title=f"{SEARCH} wanted", body="")
        AnswerFactory(question=public, body="In the music shop.")

        assert "music shop" in as_(customer).get(f"/?q={SEARCH}").content.decode()
        assert found_in(as_(customer).get(f"/?q={SEARCH}").content.decode()) == []
        shown = re.sub("</?mark>", "", as_(agent).get(f"/?q={SEARCH}").content.decode())
        assert {TITLE, BODY} <= set(found_in(shown))

    def test_a_page_that_agents_looked_at_is_kept_for_them_alone(self, owner, customer, agent):
        for number in range(20):
            QuestionFactory(title=f"{SEARCH} {TITLE} {number}", audience="private", asked_by=owner)

        assert TITLE in as_(agent).get(f"/?q={SEARCH}").content.decode()
        assert TITLE in as_(agent).get(f"/?q={SEARCH}&page=2").content.decode()
        assert found_in(as_(customer).get(f"/?q={SEARCH}&page=2").content.decode()) == []
        with connection.cursor() as cursor:
            cursor.execute("SELECT cache_key, value FROM cache")
            kept = " ".join(f"{key} {base64.b64decode(value)}" for key, value in cursor.fetchall())
        assert "ranked_by" in kept
        assert found_in(kept) == []
        assert "saxophone" not in kept

    @staticmethod
    def embed(scorer, questions):
        for question in questions:
            text = text_of(question)
            Embedding.objects.create(
                question=question, vector=scorer.embed([text.input])[0], text_hash=text.hash,
                fingerprint=scorer.embedding_fingerprint,
            )  # fmt: skip


class TestGuests:
    """A guest's question that waits for its address: of its texts, nothing is anywhere."""

    @pytest.fixture
    def waiting(self, scorer, hidden):
        QuestionFactory(title=f"{SEARCH} and its case")
        given = {"title": f"{SEARCH} {TITLE}", "body": BODY, "audience": "public",
                 "product": hidden.product_id, "email": "ada@bilbytitle.example"}  # fmt: skip
        Question.objects.filter(audience="private").update(title="x", body="x")
        Answer.objects.update(body="x")
        assert as_(None).post("/ask/", {**given, "seen_similar": "1"}).status_code == 302
        return GuestRequest.objects.get()

    @pytest.mark.parametrize("role", ["guest", "customer", "agent", "admin"])
    def test_neither_strangers_nor_agents_read_anything_of_it(self, request, waiting, role):
        question = Question.objects.filter(audience="private").first()
        person = None if role == "guest" else request.getfixturevalue(role)

        text = everything(as_(person), question)

        assert found_in(text) == []
        assert "and its case" in text

    def test_its_page_is_for_who_has_the_link(self, waiting):
        assert set(found_in(as_(None).get(f"/confirm/{guests.token(waiting)}/").content.decode()))
        assert as_(None).get(f"/confirm/{waiting.pk}/").status_code == 404

    def test_no_mail_and_no_other_row_has_it(self, waiting):
        guests.send_due(now=timezone.now())
        pipeline.check_waiting(limit=16)

        tables = [model for model in apps.get_models() if model is not GuestRequest]
        rows = [list(model.objects.values()) for model in tables if model is not Session]
        assert found_in(json.dumps(rows, default=str)) == []
        assert found_in(mail.outbox[0].subject + mail.outbox[0].body) == []

    def test_no_log_line_has_it_nor_the_link(self, log, capfd, waiting):
        token = guests.token(waiting)
        as_(None).get(f"/confirm/{token}/")
        as_(None).post("/ask/", {"title": TITLE, "body": BODY, "email": "ada@bilbytitle.example"})
        Client(enforce_csrf_checks=True).post(f"/confirm/{token}/")
        as_(None).put(f"/confirm/{token}/")
        as_(None).get(f"/accounts/confirm-email/{token}/")
        as_(None).get("/accounts/password/reset/key/1-secretsecret/")
        as_(None).post(f"/confirm/{token}/")

        out = capfd.readouterr()
        assert "POST /confirm/…/" in log.getvalue()
        assert "Method Not Allowed (PUT): /confirm/…/" in log.getvalue()
        assert "Forbidden" in log.getvalue()
        assert "secretsecret" not in log.getvalue() + out.out + out.err
        assert found_in(log.getvalue() + out.out + out.err) == []
        assert token not in log.getvalue() + out.out + out.err


class TestMail:
    def sent(self, later=timedelta(minutes=1)):
        """All that each person got, heads and every part of it, as text."""
        notifications.send_due(now=timezone.now() + later)
        texts = {}
        for message in mail.outbox:
            html = "".join(text for text, _ in message.alternatives)
            whole = f"{message.subject}\n{message.extra_headers}\n{message.body}\n{html}"
            texts[tuple(message.to)] = texts.get(tuple(message.to), "") + whole
        return texts

    @pytest.mark.parametrize("pace", ["at_once", "daily"])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_nobody_else_reads_a_word_whatever_is_merged_and_undone(
        self, hidden, agent, admin, owner, customer, pace, when
    ):
        """Every thing that is told happens to private questions that a stranger still follows."""
        User.objects.filter(pk__in=[owner.pk, customer.pk]).update(mail_pace=pace)
        other = Question.objects.get(title__contains=OTHER)
        public = QuestionFactory(title="A public one", asked_by=customer)
        for question in (hidden, other, public):
            for person in (owner, customer):
                Subscription.objects.get_or_create(question=question, subscriber=person)
        if when == "after":
            edge = merging.merge(duplicate=other, canonical=hidden, by=admin)
        for question in (hidden, other, public):
            answering.post_answer(question=question, body=f"{ANSWER} private", by=agent)
        Answer.objects.filter(question=public).update(body="An open answer")
        answer = AnswerFactory(question=hidden, body=ANSWER, written_by=customer)
        answering.accept_answer(question=hidden, answer=answer, by=owner)
        if when == "before":
            edge = merging.merge(duplicate=other, canonical=hidden, by=admin)
        merging.unmerge(merge=edge, by=admin)
        merging.restore(merge=edge, by=admin)

        sent = self.sent(timedelta(days=2))

        assert set(sent) - {(agent.email,)} == {(owner.email,), (customer.email,)}
        assert "An open answer" in sent[(customer.email,)]
        assert found_in(sent[(customer.email,)]) == []
        for question in (hidden, other):
            assert f"/questions/{question.pk}/" not in sent[(customer.email,)]
            assert f"question-{question.pk}@" not in sent[(customer.email,)]
        assert set(found_in(sent[(owner.email,)])) >= {TITLE, ANSWER, OTHER}

    def test_only_its_asker_hears_of_an_answer(self, hidden, agent, owner, customer):
        for person in (owner, customer):
            Subscription.objects.get_or_create(question=hidden, subscriber=person)

        answering.post_answer(question=hidden, body=ANSWER, by=agent)

        assert set(self.sent()) == {(owner.email,)}
        assert set(found_in(self.sent()[(owner.email,)])) == {TITLE, ANSWER}

    def test_a_page_that_ends_mail_names_nothing_private(self, hidden, owner, customer):
        for person in (owner, customer):
            path = reverse("unsubscribe", args=[mailing.token(mailing.STOP, person.pk, hidden.pk)])
            for answer in (as_(None).get(path), as_(None).post(path), as_(customer).get(path)):
                assert answer.status_code == 200
                assert found_in(answer.content.decode()) == []

    def test_only_its_asker_hears_of_a_merge(self, hidden, admin, owner, customer):
        other = Question.objects.get(title__contains=OTHER)
        for person in (owner, customer):
            Subscription.objects.get_or_create(question=other, subscriber=person)

        merging.merge(duplicate=other, canonical=hidden, by=admin)

        assert set(self.sent()) == {(owner.email,)}

    def test_what_became_private_meanwhile_is_not_sent(self, owner, agent, customer):
        question = QuestionFactory(title=TITLE, asked_by=owner)
        Subscription.objects.create(question=question, subscriber=customer)
        answering.post_answer(question=question, body=ANSWER, by=agent)
        asking.edit_question(
            question=question, title=TITLE, body="", audience="private", by=owner, seen=1
        )

        assert set(self.sent()) <= {(owner.email,)}
        assert Notification.objects.get(recipient=customer).status == "cancelled"


@pytest.fixture
def log():
    """All log lines, as the console would get them."""
    root = logging.getLogger()
    handler = logging.StreamHandler(io.StringIO())
    console = next(h for h in root.handlers if "ProcessorFormatter" in type(h.formatter).__name__)
    handler.setFormatter(console.formatter)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.stream
    root.removeHandler(handler)
    root.setLevel(level)


def travel(scorer, owner, agent, admin):
    """A private question from asking to unmerging, with failures on its way."""
    client = as_(owner)
    given = {"title": f"{TITLE} {SEARCH}", "body": BODY, "audience": "private"}
    product = ProductFactory()
    client.post("/ask/", {**given, "product": product.pk, "seen_similar": "1"})
    client.post("/ask/similar/", given)
    client.get("/", {"q": f"{TITLE} {BODY}"})
    client.get(f"/questions/{MISSING}/", {"q": TITLE})
    client.post(
        "/api/v1/questions/", {**given, "product": "lamp", "title": f"{OTHER} {SEARCH}"},
        content_type="application/json", headers={"Idempotency-Key": "k"},
    )  # fmt: skip
    client.post("/api/v1/similar/", {"title": TITLE}, content_type="application/json")
    client.post(
        "/api/v1/questions/", {"title": TITLE, TITLE: BODY}, content_type="application/json"
    )
    client.post("/api/v1/questions/", f'{{"title": "{TITLE}', content_type="application/json")
    question = Question.objects.get(title__contains=TITLE)
    client.post(f"/questions/{question.pk}/edit/", {**given, "seen": "7"})
    client.patch(
        f"/api/v1/questions/{question.pk}/", {"title": f"{TITLE} {SEARCH}", "body": "x" * 20_001},
        content_type="application/json",
    )  # fmt: skip
    as_(agent).post(f"/questions/{question.pk}/answer/", {"body": ANSWER})
    scorer.broken_by = BODY
    pipeline.check_waiting(limit=16)
    scorer.broken_by = None
    for _ in range(3):
        pipeline.check_waiting(limit=16)
    other = Question.objects.get(title__contains=OTHER)
    edge = merging.merge(duplicate=other, canonical=question, by=admin, reason=TITLE)
    as_(admin).post(f"/manage/merge/{other.pk}/{question.pk}/", {"reason": BODY})
    desk.dispute(question=other, by=owner, reason=BODY)
    desk.unmerge(merge=edge, by=admin)
    notifications.send_due(now=timezone.now())
    return question


class TestBehindTheScenes:
    def test_no_log_line_has_it(self, log, scorer, owner, agent, admin, capfd):
        travel(scorer, owner, agent, admin)

        out = capfd.readouterr()
        assert "request_finished" in log.getvalue()
        assert "A check failed" in log.getvalue()
        assert found_in(log.getvalue() + out.out + out.err) == []

    def test_no_log_line_has_the_row_that_postgres_refused(self, log, owner):
        question = QuestionFactory(title=TITLE, body=BODY, asked_by=owner)
        with pytest.raises(IntegrityError, match=TITLE) as caught, transaction.atomic():
            Question.objects.filter(pk=question.pk).update(canonical=question.pk)

        logging.getLogger("dedup").error("A check failed", exc_info=caught.value)

        assert "IntegrityError" in log.getvalue()
        assert "question_not_its_own_canonical" in log.getvalue()
        assert found_in(log.getvalue()) == []

    def test_no_log_line_has_the_locals_of_a_failure(self, log, client, monkeypatch):
        def fail(*_):
            secret = TITLE  # noqa: F841 - a local variable of the frame that fails
            raise RuntimeError("failed")

        client.raise_request_exception = False
        monkeypatch.setattr("support.views.thread.read", fail)
        question = QuestionFactory(title=TITLE)

        assert client.get(f"/questions/{question.pk}/").status_code == 500

        assert "RuntimeError: failed" in log.getvalue()
        assert "in fail" in log.getvalue()
        assert found_in(log.getvalue()) == []

    def test_what_came_of_suggestions_is_kept_without_a_word(self, scorer, owner, agent, admin):
        travel(scorer, owner, agent, admin)
        as_(owner).post("/ask/similar/", {"title": f"{TITLE} {SEARCH}", "body": BODY})

        kept = json.dumps(list(Deflection.objects.values()), default=str)
        assert Deflection.objects.exists()
        assert found_in(kept) == []

    def test_the_audit_trail_has_ids_only(self, scorer, owner, agent, admin):
        travel(scorer, owner, agent, admin)

        entries = json.dumps(list(AuditEntry.objects.values()), default=str)
        assert {"asked", "answered", "merged", "unmerged", "disputed"} <= set(
            AuditEntry.objects.values_list("action", flat=True)
        )
        assert found_in(entries) == []

    def test_no_draft_outlives_its_answer_and_no_failure_tells_a_text(
        self, scorer, owner, agent, admin
    ):
        travel(scorer, owner, agent, admin)

        assert not Draft.objects.exists()
        assert found_in(json.dumps(list(OutboxEntry.objects.values()), default=str)) == []

    @pytest.mark.django_db(transaction=True)
    def test_the_broker_carries_bells_and_random_ids_only(self, scorer, owner, agent, admin):
        broker = redis.Redis.from_url(settings.REDIS_URL)
        broker.flushdb()

        travel(scorer, owner, agent, admin)

        kept = {key: dump(broker, key) for key in broker.scan_iter()}
        messages = [
            text for key, text in kept.items() if key in {b"checks", b"interactive", b"mail"}
        ]
        assert "dedup.tasks.check_waiting" in " ".join(messages)
        assert "dedup.tasks.suggest" in " ".join(messages)
        assert "support.tasks.send_notifications" in " ".join(messages)
        assert found_in(" ".join(f"{key!r} {text}" for key, text in kept.items())) == []
        broker.flushdb()

    def test_the_answer_kept_for_a_repeated_write_is_its_writers_alone(self, owner, customer):
        ProductFactory()
        given = {"product": "lamp", "title": TITLE, "audience": "private"}

        def post(person):
            return as_(person).post(
                "/api/v1/questions/", given, content_type="application/json",
                headers={"Idempotency-Key": "the same"},
            ).json()  # fmt: skip

        first, second = post(owner), post(customer)

        assert first["id"] != second["id"]
        assert IdempotencyRecord.objects.count() == 2

    def test_a_drafts_table_survives_no_crash(self):
        """Unlogged: after a crash of Postgres nothing of it is left, and no backup has it."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT relpersistence FROM pg_class WHERE relname = 'dedup_draft'")
            assert cursor.fetchone()[0] == "u"


def dump(broker, key):
    """All that Redis keeps under a key, as text; bodies of messages decoded."""
    kind = broker.type(key).decode()
    read = {
        "string": lambda: [broker.get(key)],
        "list": lambda: broker.lrange(key, 0, -1),
        "set": lambda: broker.smembers(key),
        "zset": lambda: broker.zrange(key, 0, -1),
        "hash": lambda: [*broker.hgetall(key), *broker.hgetall(key).values()],
    }[kind]()
    texts = [value.decode(errors="replace") for value in read]
    for text in list(texts):
        if '"body"' in text:
            texts.append(base64.b64decode(json.loads(text)["body"]).decode())
    return " ".join(texts)
