"""A person sets how they read, signs in with a passkey, and leaves for good."""

import json
from pathlib import Path

import pytest

from support import asking
from support.models import User
from tests.browser.conftest import PASSWORD
from tests.factories import ProductFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

PAPER = "getComputedStyle(document.body).backgroundColor"


def with_a_passkey_device(visitor):
    """Give this browser a device that holds passkeys and always finds its owner's finger."""
    devtools = visitor.context.new_cdp_session(visitor.page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
        "hasUserVerification": True, "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def prove(visitor):
    """Say once more who one is, on the page that asks for it."""
    visitor.page.get_by_role("heading", name="Confirm Access").wait_for()
    visitor.page.fill("input[name=password]", PASSWORD)
    visitor.page.click("main button[type=submit]")


def sign_out(visitor):
    visitor.page.locator(".menu summary").click()
    visitor.page.get_by_role("button", name="Sign out").click()
    visitor.page.get_by_role("link", name="Sign in").first.wait_for()


def test_a_reader_lives_by_their_own_clock_in_their_own_light(visit, customer):
    question = QuestionFactory(asked_at="2026-07-01T12:00Z")
    reader = visit(customer, timezone_id="Asia/Tokyo", color_scheme="light")
    reader.open("/")  # here the script learns the browser's zone
    light = reader.page.evaluate(PAPER)
    reader.open(question.get_absolute_url())
    told = reader.page.locator("time").first.get_attribute("datetime")
    assert told == "2026-07-01T21:00:00+09:00"

    reader.page.locator(".menu summary").click()
    reader.page.get_by_role("link", name="Preferences").click()
    reader.page.get_by_label("Dark").check()
    reader.page.get_by_label("Time zone").select_option("Europe/Berlin")
    reader.page.locator("#id_language").select_option("de")
    reader.page.get_by_role("button", name="Save").click()
    reader.page.locator("html[data-theme=dark][lang=de]").wait_for()

    assert reader.page.evaluate(PAPER) != light
    reader.open(question.get_absolute_url())
    told = reader.page.locator("time").first.get_attribute("datetime")
    assert told == "2026-07-01T14:00:00+02:00"


def test_preferences_are_kept_without_javascript(visit, customer):
    reader = visit(customer, java_script_enabled=False)
    reader.open("/account/")
    reader.page.get_by_label("One mail a day").check()
    reader.page.get_by_role("button", name="Save").click()
    reader.page.get_by_text("Saved.").wait_for()

    customer.refresh_from_db()
    assert customer.mail_pace == "daily"


def test_keys_are_switched_off_on_the_desk_and_so_in_the_account(visit, agent):
    desk = visit(agent)
    desk.open("/review/")
    assert desk.page.locator("[aria-keyshortcuts]").count() > 0
    desk.page.keyboard.press("?")
    with desk.page.expect_response("**/account/keys/") as kept:
        desk.page.get_by_label("Use keys").uncheck()
    assert kept.value.status == 204
    desk.page.get_by_role("button", name="Close").click()

    desk.open("/account/")
    assert not desk.page.get_by_label("Use keys on the review desk").is_checked()
    desk.open("/review/")
    desk.page.keyboard.press("Control+k")
    assert not desk.page.locator("#palette").is_visible()
    assert desk.page.locator("[aria-keyshortcuts]").count() == 0


def test_a_passkey_is_added_and_lets_its_owner_in(visit, customer):
    person = visit()
    with_a_passkey_device(person)
    person.sign_in(customer)
    person.open("/accounts/2fa/webauthn/add/")
    prove(person)
    person.page.get_by_label("Passwordless").check()
    person.page.get_by_role("button", name="Add").click()
    person.page.wait_for_url("**/accounts/2fa/recovery-codes/**")
    assert customer.authenticator_set.filter(type="webauthn").exists()
    sign_out(person)

    person.open("/accounts/login/")
    person.page.get_by_role("button", name="Sign in with a passkey").click()
    person.page.wait_for_selector(".menu")
    person.open("/mine/")
    assert person.path() == "/mine/"


def test_an_agent_comes_in_by_a_second_factor_that_is_a_passkey(visit, agent, settings):
    settings.SECOND_FACTOR = True
    person = visit()
    with_a_passkey_device(person)
    person.sign_in(agent)
    person.open("/review/")
    prove(person)
    assert person.path().startswith("/accounts/2fa/")  # nothing else until there is one
    person.open("/accounts/2fa/webauthn/add/")
    person.page.get_by_role("button", name="Add").click()
    person.page.wait_for_url("**/accounts/2fa/recovery-codes/**")
    person.open("/review/")
    assert person.path() == "/review/"


def test_a_person_takes_everything_with_them_and_leaves(visit, customer):
    given = {"product": ProductFactory(), "body": "Mine.", "audience": "public"}
    question = asking.submit_question(title="Where is the switch?", by=customer, **given)
    other = visit(customer)
    person = visit()
    person.sign_in(customer)
    person.open("/account/export/")
    person.page.get_by_role("button", name="Download everything").click()
    with person.page.expect_download() as download:
        prove(person)
    told = json.loads(Path(download.value.path()).read_text())
    assert [one["title"] for one in told["questions"]] == ["Where is the switch?"]

    person.open("/account/export/")
    person.page.get_by_role("link", name="Erase my account").click()
    person.page.get_by_label("Your user name").fill("yes")
    person.expected.add(400)
    person.page.get_by_role("button", name="Erase my account").click()
    person.page.get_by_text("This is not your user name.").wait_for()
    person.page.get_by_label("Your user name").fill(customer.username)
    person.page.get_by_role("button", name="Erase my account").click()
    person.page.get_by_text("Your account is erased.").wait_for()

    assert User.objects.get(pk=customer.pk).erased_at
    person.open(question.get_absolute_url())
    person.page.get_by_text("somebody who left").first.wait_for()
    assert "Where is the switch?" not in person.page.inner_text("main")
    other.open("/mine/")
    assert other.path() == "/accounts/login/"


def test_the_others_are_signed_out(visit, customer):
    here, there = visit(), visit()
    here.sign_in(customer)
    there.sign_in(customer)
    here.page.locator(".menu summary").click()
    here.page.get_by_role("link", name="Preferences").click()
    here.page.get_by_role("link", name="Browsers").click()
    here.page.get_by_role("button", name="Sign out the others").click()
    here.page.get_by_text("You are signed in nowhere else.").wait_for()

    there.open("/mine/")
    assert there.path() == "/accounts/login/"
    here.open("/mine/")
    assert here.path() == "/mine/"
