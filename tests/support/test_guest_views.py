"""What guests see on their way: asking, confirming, following, coming back by a code."""

import re
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.core import mail
from django.test import Client
from django.utils import timezone

from support import answering, guests, notifications
from support.models import GuestRequest, Question, Subscription, User
from tests.factories import AnswerFactory, ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
ADDRESS = "ada@example.org"


@pytest.fixture
def given():
    return {
        "title": "Why does it hum?", "body": "At **night**.", "audience": "private",
        "product": ProductFactory().pk, "email": ADDRESS, "seen_similar": "1",
    }  # fmt: skip


@pytest.fixture
def link(client, given):
    """The path in the mail that a guest gets after asking."""
    client.post("/ask/", given)
    return mailed_link()


def mailed_link():
    guests.send_due(now=timezone.now())
    return re.search(r"http://localhost:8000(/confirm/\S+)", mail.outbox[-1].body)[1]


def signed_in_as(client):
    pk = client.session.get("_auth_user_id")
    return User.objects.get(pk=pk) if pk else None


def text(answer):
    return answer.content.decode()


def without_tokens(page):
    return re.sub(r'csrfmiddlewaretoken" value="\w+', "", page)


class TestAsking:
    def test_a_guest_is_asked_for_an_address_and_nobody_else_is(self, client, customer):
        assert 'type="email"' in text(client.get("/ask/"))

        client.force_login(customer)
        assert 'type="email"' not in text(client.get("/ask/"))

    @pytest.mark.parametrize("address", ["", "ada", "ada@", "a" * 250 + "@example.org"])
    def test_what_is_no_address_is_marked_and_the_text_stays(self, client, given, address):
        answer = client.post("/ask/", {**given, "email": address})

        assert answer.status_code == 400
        assert "At **night**." in text(answer)
        assert not GuestRequest.objects.exists()

    def test_public_questions_like_it_come_first_also_for_guests(self, client, given):
        answered = AnswerFactory(question__title="Why does it hum at night?")
        QuestionFactory(title="Why does it hum at night, doctor?", audience="private")
        del given["seen_similar"]

        answer = client.post("/ask/", given)

        assert answer.status_code == 200
        assert answered.question.title in text(answer)
        assert "doctor" not in text(answer)
        assert f'value="{ADDRESS}"' in text(answer)
        assert not GuestRequest.objects.exists()

    def test_the_page_afterwards_is_the_same_whether_the_address_is_known(self, given):
        UserFactory(email="known@example.org")
        UserFactory(email="left@example.org", is_active=False)

        pages = []
        for address in ("known@example.org", "left@example.org", "new@example.org"):
            client = Client()
            answer = client.post("/ask/", {**given, "email": address}, follow=True)
            pages.append(without_tokens(text(answer)).replace(address, "").partition("<main")[2])

        assert len(set(pages)) == 1
        assert GuestRequest.objects.count() == 3
        assert guests.send_due(now=timezone.now()) == 3

    def test_over_the_quota_one_is_told_when_to_come_again(self, client, given):
        for _ in range(5):
            assert client.post("/ask/", given).status_code == 302

        answer = client.post("/ask/", given)

        assert answer.status_code == 429
        assert 1 <= int(answer["Retry-After"]) <= 3600
        assert "Please try again in" in text(answer)
        assert "At **night**." in text(answer)
        assert GuestRequest.objects.count() == 5

    def test_a_made_up_proxy_header_is_no_other_client(self, client, given):
        for number in range(20):
            given["email"] = f"ada{number}@example.org"
            client.post("/ask/", given, headers={"X-Forwarded-For": f"192.0.2.{number}"})
        given["email"] = ADDRESS

        answer = client.post("/ask/", given, headers={"X-Forwarded-For": "192.0.2.99"})

        assert answer.status_code == 429


class TestConfirming:
    def test_opening_the_link_shows_what_waits_and_does_nothing(self, client, link):
        answer = client.get(link)

        assert "Why does it hum?" in text(answer)
        assert "At <strong>night</strong>." in text(answer)
        assert ADDRESS in text(answer)
        assert "no-store" in answer["Cache-Control"]
        assert not Question.objects.exists()
        assert signed_in_as(client) is None

    def test_the_button_sends_it_and_signs_the_guest_in(self, client, link):
        answer = client.post(link, follow=True)

        question = Question.objects.get()
        assert answer.redirect_chain[-1][0] == question.get_absolute_url()
        assert "Your question is received." in text(answer)
        assert question.asked_by == signed_in_as(client)
        assert signed_in_as(client).is_guest

    def test_a_second_click_leads_there_and_signs_nobody_in(self, client, link):
        client.post(link)
        place = Question.objects.get().get_absolute_url()
        for method in ("get", "post"):
            assert getattr(client, method)(link)["Location"] == place

        stranger = Client()
        answers = [stranger.get(link), stranger.post(link)]

        assert {answer["Location"] for answer in answers} == {f"/accounts/login/?next={place}"}
        assert signed_in_as(stranger) is None
        assert Question.objects.count() == 1

    def test_a_full_account_gets_the_question_but_is_not_signed_in(self, client, given):
        person = UserFactory(email=ADDRESS)
        client.post("/ask/", {**given, "audience": "public"})

        answer = client.post(mailed_link(), follow=True)

        question = Question.objects.get()
        assert question.asked_by == person
        assert signed_in_as(client) is None
        place = f"/accounts/login/?next={question.get_absolute_url()}"
        assert answer.redirect_chain[-1][0] == place
        assert "Sign in to your account to see it." in text(answer)

    def test_who_is_signed_in_with_that_address_goes_straight_to_it(self, client, link):
        person = UserFactory(email=ADDRESS)
        client.force_login(person)

        answer = client.post(link)

        assert answer["Location"] == Question.objects.get(asked_by=person).get_absolute_url()

    def test_who_is_signed_in_as_another_stays_so_and_reads_nothing_private(
        self, client, link, customer
    ):
        client.force_login(customer)

        answer = client.post(link, follow=True)

        assert signed_in_as(client) == customer
        assert answer.redirect_chain[-1][0] == "/"
        assert "Why does it hum?" not in text(answer)
        assert Question.objects.get().asked_by.email == ADDRESS

    def test_a_guest_with_a_second_factor_still_needs_it(self, client, link):
        client.post(link)
        guest = User.objects.get(is_guest=True)
        Authenticator.objects.create(user=guest, type=Authenticator.Type.TOTP, data={})
        other = Client()
        question = QuestionFactory()
        other.post(f"/questions/{question.pk}/follow-by-mail/", {"email": ADDRESS})

        answer = other.post(mailed_link())

        assert answer["Location"] == "/accounts/2fa/authenticate/"
        assert signed_in_as(other) is None

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_an_old_link_says_so(self, client, link, monkeypatch, method):
        later = timezone.now() + timedelta(days=4)
        monkeypatch.setattr("django.core.signing.time.time", later.timestamp)

        answer = getattr(client, method)(link)

        assert answer.status_code == 410
        assert "This link has ended" in text(answer)
        assert not Question.objects.exists()

    def test_a_person_who_may_not_come_in_any_more_is_told_no_more_than_that(self, client, link):
        UserFactory(email=ADDRESS, is_active=False)

        assert client.post(link).status_code == 410
        assert not Question.objects.exists()

    def test_a_forged_link_is_not_found(self, client, link):
        assert client.get(link[:-2] + "/").status_code == 404

    def test_another_site_cannot_press_the_button(self, link):
        assert Client(enforce_csrf_checks=True).post(link).status_code == 403
        assert not Question.objects.exists()


class TestFollowing:
    def test_a_guest_follows_by_mail_and_hears_of_the_next_answer(self, client, agent):
        question = QuestionFactory()
        assert "Follow by mail" in text(client.get(question.get_absolute_url()))
        client.post(f"/questions/{question.pk}/follow-by-mail/", {"email": ADDRESS})
        assert not Subscription.objects.exists()

        answer = client.post(mailed_link(), follow=True)
        answering.post_answer(question=question, body="Turn it.", by=agent)
        notifications.send_due(now=timezone.now())

        assert "You follow this question now." in text(answer)
        assert mail.outbox[-1].to == [ADDRESS]
        assert "Turn it." in mail.outbox[-1].body

    def test_a_full_account_follows_at_once_and_is_not_signed_in(self, client):
        person, question = UserFactory(email=ADDRESS), QuestionFactory()
        client.post(f"/questions/{question.pk}/follow-by-mail/", {"email": ADDRESS})

        answer = client.post(mailed_link())

        assert answer["Location"] == question.get_absolute_url()
        assert question.subscriptions.get().subscriber == person
        assert signed_in_as(client) is None

    def test_what_is_no_address_is_said(self, client):
        question = QuestionFactory()

        path = f"/questions/{question.pk}/follow-by-mail/"
        answer = client.post(path, {"email": "ada"}, follow=True)

        assert "Please give a mail address" in text(answer)
        assert not GuestRequest.objects.exists()

    def test_over_the_quota_one_is_told_when_to_come_again(self, client):
        path = f"/questions/{QuestionFactory().pk}/follow-by-mail/"

        answers = [client.post(path, {"email": ADDRESS}) for _ in range(6)]

        assert [answer.status_code for answer in answers] == [302] * 5 + [429]
        assert 1 <= int(answers[-1]["Retry-After"]) <= 3600
        assert "A little later, please" in text(answers[-1])

    def test_a_question_that_became_private_is_not_shown_by_its_link(self, client):
        question = QuestionFactory(title="Why does it hum?")
        client.post(f"/questions/{question.pk}/follow-by-mail/", {"email": ADDRESS})
        Question.objects.update(audience="private")

        answer = client.get(mailed_link())

        assert answer.status_code == 410
        assert "hum" not in text(answer)


class TestComingBack:
    @pytest.fixture
    def guest(self, client, link):
        client.post(link)
        client.logout()
        return User.objects.get(is_guest=True)

    def code_for(self, client, address):
        client.post("/accounts/login/code/", {"email": address})
        return re.search(r"(?m)^([A-Z0-9]{2,4}-?[A-Z0-9]{2,4})$", mail.outbox[-1].body)[1]

    def test_the_way_is_on_the_sign_in_page(self, client):
        assert "/accounts/login/code/" in text(client.get("/accounts/login/"))

    def test_a_guest_signs_in_with_a_code_from_a_mail(self, client, guest):
        code = self.code_for(client, ADDRESS)

        client.post("/accounts/login/code/confirm/", {"code": code})

        assert signed_in_as(client) == guest
        assert client.get(Question.objects.get().get_absolute_url()).status_code == 200

    def test_another_code_is_none(self, client, guest):
        self.code_for(client, ADDRESS)

        client.post("/accounts/login/code/confirm/", {"code": "AAA-AAA"})

        assert signed_in_as(client) is None

    @pytest.mark.parametrize("role", ["agent", "admin"])
    def test_who_works_here_needs_their_second_factor_after_it(self, client, request, role):
        person = request.getfixturevalue(role)
        Authenticator.objects.create(user=person, type=Authenticator.Type.TOTP, data={})
        code = self.code_for(client, person.email)

        answer = client.post("/accounts/login/code/confirm/", {"code": code})

        assert answer["Location"] == "/accounts/2fa/authenticate/"
        assert signed_in_as(client) is None

    def test_who_works_here_without_one_adds_one_first(self, client, agent, settings):
        settings.SECOND_FACTOR = True
        code = self.code_for(client, agent.email)
        client.post("/accounts/login/code/confirm/", {"code": code})

        assert client.get("/review/")["Location"] == "/accounts/2fa/totp/activate/"

    def test_an_address_that_was_never_confirmed_gets_no_code(self, client):
        """Else who signed up with another's address would share the account with its owner."""
        person = UserFactory(email=ADDRESS, confirmed=False)
        EmailAddress.objects.create(user=person, email=ADDRESS, primary=True)

        client.post("/accounts/login/code/", {"email": ADDRESS})

        assert "code" not in mail.outbox[-1].subject.lower()
        assert not EmailAddress.objects.get().verified

    def test_the_page_afterwards_is_the_same_whether_the_address_is_known(self, guest):
        pages = []
        for address in (ADDRESS, "new@example.org"):
            answer = Client().post("/accounts/login/code/", {"email": address}, follow=True)
            pages.append(without_tokens(text(answer)).replace(address, ""))

        assert pages[0] == pages[1]

    def test_who_wants_to_sign_up_with_it_is_told_how_to_get_a_password(self, client, guest):
        password = "correct horse battery"
        given = {"username": "ada", "email": ADDRESS, "password1": password, "password2": password}

        answer = client.post("/accounts/signup/", given)

        assert "sign in with a code that we send there" in text(answer)
        assert User.objects.get(email=ADDRESS) == guest

    def test_who_sets_a_password_is_no_guest_any_more(self, client, guest):
        client.post("/accounts/login/code/confirm/", {"code": self.code_for(client, ADDRESS)})
        given = {"password1": "correct horse battery", "password2": "correct horse battery"}

        client.post("/accounts/password/set/", given)

        guest.refresh_from_db()
        assert not guest.is_guest
        assert guest.has_usable_password()


class TestUnconfirmed:
    """People who signed up with a password, and have not shown that the address is theirs."""

    @pytest.fixture
    def person(self, client):
        client.post("/accounts/signup/", {
            "username": "ada", "email": ADDRESS,
            "password1": "correct horse battery", "password2": "correct horse battery",
        })  # fmt: skip
        return User.objects.get(username="ada")

    def test_who_signs_up_is_sent_a_confirming_mail_and_told_what_is_missing(self, client, person):
        assert mail.outbox[0].to == [ADDRESS]
        assert "/accounts/confirm-email/" in mail.outbox[0].body
        assert "is not confirmed" in text(client.get("/mine/"))

    def test_nothing_else_is_mailed_until_it_is_confirmed(self, client, person, agent):
        question = QuestionFactory()
        answering.set_following(question=question, by=person, wanted=True)
        answering.post_answer(question=question, body="Turn it.", by=agent)
        notifications.send_due(now=timezone.now())
        assert len(mail.outbox) == 1

        path = re.search(r"https?://[^/]+(/accounts/confirm-email/\S+)", mail.outbox[0].body)[1]
        client.post(path)
        answering.post_answer(question=question, body="Turn it more.", by=agent)
        notifications.send_due(now=timezone.now())

        assert [message.to for message in mail.outbox[1:]] == [[ADDRESS]]
        assert "is not confirmed" not in text(client.get("/mine/"))

    def test_who_an_admin_made_confirms_by_the_same_page(self, client):
        person = UserFactory(email=ADDRESS, confirmed=False)
        client.force_login(person)
        assert "/accounts/email/" in text(client.get("/mine/"))
        assert ADDRESS in text(client.get("/accounts/email/"))

        client.post("/accounts/email/", {"email": ADDRESS, "action_send": ""})
        path = re.search(r"https?://[^/]+(/accounts/confirm-email/\S+)", mail.outbox[0].body)[1]
        client.post(path)

        assert "is not confirmed" not in text(client.get("/mine/"))
