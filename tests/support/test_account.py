import re
from urllib.parse import quote

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.core import mail
from django.test import Client

from support import tasks
from support.models import User
from tests.factories import QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def signed_in(person, **headers):
    """A browser that came in by the sign-in page, and whose person proved who they are."""
    client = Client(headers=headers)
    given = {"login": person.username, "password": PASSWORD}
    assert client.post("/accounts/login/", given).status_code == 302
    assert client.post("/accounts/reauthenticate/", {"password": PASSWORD}).status_code == 302
    return client


def signed_in_by_code(person):
    """A browser of somebody who has no password."""
    client = Client()
    asked = client.post("/accounts/login/code/", {"email": person.email})
    code = re.search(r"^[A-Z0-9-]{6,}$", mail.outbox[-1].body, re.M)[0]
    assert client.post(asked["Location"], {"code": code}).status_code == 302
    return client


def chosen(**given):
    return {
        "display_name": "",
        "language": "",
        "time_zone": "",
        "theme": "auto",
        "mail_pace": "at_once",
        **given,
    }


@pytest.fixture
def guest():
    person = UserFactory(is_guest=True, password="!none")
    person.groups.add(Group.objects.get(name="customer"))
    return person


class TestPreferences:
    def test_a_person_sets_how_the_portal_looks_and_speaks(self, client, customer):
        client.force_login(customer)

        answer = client.post(
            "/account/",
            chosen(
                display_name="Ann",
                language="en",
                time_zone="Asia/Tokyo",
                theme="dark",
                mail_pace="daily",
            ),
            follow=True,
        )

        customer.refresh_from_db()
        assert (customer.display_name, customer.language, customer.time_zone, customer.theme) == (
            "Ann", "en", "Asia/Tokyo", "dark",
        )  # fmt: skip
        assert customer.mail_pace == "daily"
        assert 'data-theme="dark"' in answer.content.decode()

    @pytest.mark.parametrize(
        "wrong", [{"theme": "plum"}, {"mail_pace": "hourly"}, {"language": "tlh"},
                  {"time_zone": "Mars/Olympus"},
                  {"time_zone": "../../etc/passwd"}, {"display_name": "x" * 101}],
    )  # fmt: skip
    def test_what_is_unknown_is_refused_and_said(self, client, customer, wrong):
        client.force_login(customer)

        answer = client.post("/account/", chosen(**wrong))

        assert answer.status_code == 400
        assert "errorlist" in answer.content.decode()
        assert User.objects.get(pk=customer.pk).theme == "auto"

    def test_only_who_reviews_is_asked_about_keys(self, client, customer, agent):
        for person, is_asked in ((customer, False), (agent, True)):
            client.force_login(person)
            assert ("uses_keys" in client.get("/account/").content.decode()) is is_asked

    def test_the_desk_knows_whether_keys_are_wanted_and_can_say_it_itself(self, client, agent):
        client.force_login(agent)
        assert 'id="keys-on" name="on" checked' in client.get("/review/").content.decode()

        assert client.post("/account/keys/").status_code == 204

        assert 'id="keys-on" name="on" autocomplete' in client.get("/review/").content.decode()
        client.post("/account/keys/", {"on": "on"})
        agent.refresh_from_db()
        assert agent.uses_keys


class TestSessions:
    def test_a_browser_is_listed_until_it_is_signed_out_from_another(self, customer):
        here = signed_in(customer, user_agent=FIREFOX)
        there = signed_in(customer, user_agent="curl/8")

        page = here.get("/accounts/sessions/").content.decode()
        assert "Firefox on Linux" in page
        assert "An unknown browser" in page
        here.post("/accounts/sessions/")

        assert here.get("/mine/").status_code == 200
        assert there.get("/mine/").status_code == 302
        assert UserSession.objects.count() == 1

    def test_nobody_sees_the_browsers_of_others(self, customer, agent):
        signed_in(customer, user_agent="secretbrowser")

        page = signed_in(agent).get("/accounts/sessions/").content.decode()

        assert "secretbrowser" not in page

    def test_what_is_known_of_a_browser_goes_with_its_session(self, customer):
        signed_in(customer)
        signed_in(customer)
        Session.objects.filter(pk=Session.objects.first().pk).update(
            expire_date="2020-01-01T00:00Z"
        )

        tasks.tidy()

        assert (Session.objects.count(), UserSession.objects.count()) == (1, 1)


class TestErasing:
    def test_a_person_leaves_by_typing_their_name(self, customer):
        question = QuestionFactory(asked_by=customer)
        client = signed_in(customer)

        answer = client.post("/account/erase/", {"username": customer.username}, follow=True)

        customer.refresh_from_db()
        question.refresh_from_db()
        assert customer.erased_at
        assert question.title == "[erased by its writer]"
        page = answer.content.decode()
        assert "Your account is erased" in page
        assert "Sign in" in page

    def test_a_slip_erases_nobody(self, customer):
        answer = signed_in(customer).post("/account/erase/", {"username": "yes"})

        customer.refresh_from_db()
        assert (answer.status_code, customer.erased_at) == (400, None)
        assert "This is not your user name." in answer.content.decode()

    def test_a_guest_leaves_after_they_came_in_by_a_code(self, guest):
        client = signed_in_by_code(guest)

        client.post("/account/erase/", {"username": guest.username})

        guest.refresh_from_db()
        assert guest.erased_at
        assert not guest.is_guest

    def test_the_page_names_the_name_to_type_whatever_is_in_it(self, client, customer):
        User.objects.filter(pk=customer.pk).update(username="<b>ann</b>")
        client.force_login(customer)

        page = client.get("/account/erase/").content.decode()

        assert "type your user name: &lt;b&gt;ann&lt;/b&gt;" in page

    @pytest.mark.parametrize("path", ["/account/erase/", "/account/export/"])
    def test_a_guest_who_came_long_ago_comes_in_again_first(self, client, guest, path):
        client.force_login(guest)

        answer = client.post(path, {"username": guest.username}, follow=True)

        assert answer.redirect_chain == [(f"/accounts/login/code/?next={quote(path, '')}", 302)]
        assert "Sign in once more" in answer.content.decode()
        guest.refresh_from_db()
        assert guest.erased_at is None

    @pytest.mark.parametrize("path", ["/account/erase/", "/account/export/"])
    def test_who_came_long_ago_proves_first_who_they_are(self, client, customer, path):
        client.force_login(customer)
        given = {"username": customer.username}

        asked = client.post(path, given)
        assert asked["Location"].startswith("/accounts/reauthenticate/")
        customer.refresh_from_db()
        assert customer.erased_at is None

        done = client.post(asked["Location"], {"password": PASSWORD})
        customer.refresh_from_db()
        if "erase" in path:
            assert customer.erased_at
        else:
            assert done["Content-Disposition"].startswith("attachment")

    def test_the_last_admin_is_told_why_not(self, admin):
        answer = signed_in(admin).post("/account/erase/", {"username": admin.username})

        assert answer.status_code == 409
        assert "name another admin first" in answer.content.decode()

    def test_who_left_cannot_come_back_by_their_old_password(self, customer):
        name = customer.username
        signed_in(customer).post("/account/erase/", {"username": name})

        for login in (name, f"erased-{customer.pk}"):
            answer = Client().post("/accounts/login/", {"login": login, "password": PASSWORD})
            assert answer.status_code == 200


def test_agents_without_a_second_factor_reach_no_preferences(client, agent, settings):
    settings.SECOND_FACTOR = True
    client.force_login(agent)
    assert client.get("/account/").status_code == 302

    Authenticator.objects.create(user=agent, type="webauthn", data={})
    assert client.get("/account/").status_code == 200


@pytest.mark.parametrize("is_demo", [True, False])
def test_the_demo_says_that_nobody_is_asked_for_a_second_factor(client, settings, is_demo):
    settings.DEMO = is_demo

    assert ("nobody is asked for a second factor" in client.get("/").content.decode()) is is_demo
