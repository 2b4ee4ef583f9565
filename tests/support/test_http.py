import pytest
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.test import Client

from support import permissions
from support.models import ApiToken, User
from tests.factories import QuestionFactory

pytestmark = pytest.mark.django_db
PAGES = ["/", "/api/v1/questions/"]


def refusing(monkeypatch, error):
    """Both kinds of pages raise `error` in the midst of their view."""

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("support.models.Question.objects.visible_to", fail)


@pytest.fixture
def client(client, customer):
    client.force_login(customer)
    client.raise_request_exception = False
    return client


def is_page(answer):
    return answer["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
@pytest.mark.parametrize("path", PAGES)
def test_without_its_database_the_site_asks_for_patience(client, monkeypatch, error, path):
    refusing(monkeypatch, error)

    answer = client.get(path)

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert is_page(answer) or answer.json()["code"] == "unavailable"


@pytest.mark.parametrize("path", PAGES)
def test_a_database_that_is_away_before_any_view_is_no_failure_either(client, monkeypatch, path):
    """The session is read, or saved, outside the views."""

    def gone(*_):
        raise OperationalError("gone")

    monkeypatch.setattr("django_htmx.middleware.HtmxMiddleware.__call__", gone)

    answer = Client(raise_request_exception=False).get(path)

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("path", PAGES)
def test_a_failure_says_nothing_of_itself(client, monkeypatch, path):
    refusing(monkeypatch, RuntimeError("a secret of the code"))

    answer = client.get(path)

    assert answer.status_code == 500
    assert "a secret of the code" not in answer.content.decode()
    assert is_page(answer) or answer.json()["code"] == "failed"


@pytest.mark.parametrize("path", ["/nothing/", "/api/nothing/"])
def test_what_is_not_there_is_told_in_the_readers_form(client, path):
    answer = client.get(path)

    assert answer.status_code == 404
    assert is_page(answer) or answer["Content-Type"] == "application/problem+json"
    assert is_page(answer) is not path.startswith("/api/")


@pytest.mark.parametrize(
    "path", ["/%00", "/?q=%00", "/questions/%00/", "/accounts/login/?next=%00"]
)
def test_a_nul_in_an_address_is_a_bad_request(client, path):
    answer = client.get(path)

    assert answer.status_code == 400
    assert is_page(answer)


@pytest.mark.parametrize("path", ["/ask/", "/api/v1/questions/", "/accounts/login/", "/admin/"])
def test_a_request_over_256_kb_is_refused_before_it_is_read(client, path):
    body = b"x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)

    answer = client.post(path, body, content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 413
    assert is_page(answer) is not path.startswith("/api/")


def test_a_request_that_turns_out_too_large_is_refused_too(client, monkeypatch):
    refusing(monkeypatch, RequestDataTooBig())

    assert client.get("/").status_code == 413


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("wanted", ["", "text/html", "application/json", "*/*;q=0", ","])
def test_whatever_kind_is_wanted_is_answered(client, path, wanted):
    assert client.get(path, headers={"Accept": wanted}).status_code in {200, 406}


def test_who_signs_in_on_the_way_to_a_button_is_told_why_there_is_no_page(client):
    answer = client.get("/questions/1/vote/")

    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert "go back to the page that led here" in answer.content.decode()


class TestTooOften:
    def ask(self, client, **headers):
        given = {"login": "nobody@example.com", "password": "x", "email": "nobody@example.com"}
        return [client.post("/accounts/password/reset/", given, headers=headers) for _ in range(21)]

    def test_the_page_says_when_to_come_again(self):
        answer = self.ask(Client())[-1]

        assert answer.status_code == 429
        assert 1 <= int(answer["Retry-After"]) <= 60
        assert "Please try again in 1 minute." in answer.content.decode()
        assert "A little later, please" in answer.content.decode()

    def test_it_does_so_in_the_readers_language(self):
        answer = self.ask(Client(), **{"Accept-Language": "de"})[-1]

        assert 'lang="de"' in answer.content.decode()


@pytest.mark.parametrize("path", PAGES)
def test_another_host_is_a_bad_request(path):
    answer = Client(headers={"host": "example.org"}).get(path)

    assert answer.status_code == 400
    assert is_page(answer) or answer.json()["code"] == "bad_request"


def test_the_log_has_paths_and_no_searches(client, caplog):
    client.get("/?q=something+private")

    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert {"request_started", "request_finished"} <= {line["event"] for line in lines}
    assert "GET /" in {line.get("request") for line in lines}
    assert "private" not in str(lines)
    assert "127.0.0.1" not in str(lines)


def test_an_error_and_its_log_lines_have_one_request_id(client, caplog):
    answer = client.get("/api/v1/questions/1/")

    ids = {record.msg["request_id"] for record in caplog.records if isinstance(record.msg, dict)}
    assert ids == {answer.json()["request_id"]}


def test_who_signs_up_is_a_customer():
    client = Client()
    given = {
        "username": "new", "email": "new@example.com",
        "password1": "correct horse battery", "password2": "correct horse battery",
    }  # fmt: skip

    answer = client.post("/accounts/signup/", given)

    person = User.objects.get(username="new")
    assert answer.status_code == 302
    assert [group.name for group in person.groups.all()] == [permissions.CUSTOMER]
    assert not person.is_staff
    hidden = QuestionFactory(audience="private")
    assert client.get(f"/questions/{hidden.pk}/").status_code == 404
    assert client.get("/mine/").status_code == 200


class TestSecondFactor:
    @pytest.fixture(autouse=True)
    def asked_for(self, settings):
        settings.SECOND_FACTOR = True

    @pytest.fixture
    def signed_in(self, request):
        def sign_in(role):
            client = Client()
            client.force_login(request.getfixturevalue(role))
            return client

        return sign_in

    @pytest.mark.parametrize("role", ["agent", "admin"])
    @pytest.mark.parametrize("path", ["/", "/review/", "/admin/", "/questions/1/"])
    def test_who_works_here_adds_one_before_anything_else(self, signed_in, role, path):
        answer = signed_in(role).get(path)

        assert (answer.status_code, answer["Location"]) == (302, "/accounts/2fa/totp/activate/")

    def test_the_way_to_add_one_stays_open(self, signed_in):
        client = signed_in("agent")

        assert client.get("/accounts/2fa/").status_code == 200
        assert client.post("/accounts/logout/").status_code == 302
        assert client.get("/livez").status_code == 200

    def test_a_session_does_not_get_around_it_through_the_api(self, signed_in):
        answer = signed_in("agent").get("/api/v1/flags/")

        assert (answer.status_code, answer.json()["code"]) == (403, "second_factor_required")

    def test_a_token_is_one_of_its_own(self, agent):
        _, secret = ApiToken.objects.issue(user=agent, name="script")

        answer = Client().get("/api/v1/flags/", headers={"Authorization": f"Bearer {secret}"})

        assert answer.status_code == 200

    def test_with_one_the_doors_open(self, signed_in, agent):
        Authenticator.objects.create(user=agent, type=Authenticator.Type.TOTP, data={})

        assert signed_in("agent").get("/review/").status_code == 200

    def test_codes_to_recover_one_are_none(self, signed_in, agent):
        Authenticator.objects.create(
            user=agent, type=Authenticator.Type.RECOVERY_CODES, data={"seed": "x"}
        )

        assert signed_in("agent").get("/review/").status_code == 302

    def test_customers_and_guests_need_none(self, signed_in):
        assert signed_in("customer").get("/mine/").status_code == 200
        assert Client().get("/").status_code == 200

    def test_only_a_demo_does_without(self):
        source = (settings.BASE_DIR / "support" / "settings.py").read_text()

        assert "SECOND_FACTOR = not DEMO" in source
        assert "support.http.require_second_factor" in settings.MIDDLEWARE
