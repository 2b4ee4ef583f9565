"""What Django's admin is sent that no browser would: it is refused, and never fails."""

from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.urls import reverse

from tests.test_access import ADMIN_PATHS, lasting_world
from tests.test_bad_inputs import BAD, ODD_NUMBERS, ODD_WORDS, encoded

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FORM = "application/x-www-form-urlencoded"
ODD_LISTS = ["q=%00", "q=%22", "p=-1", "p=99999999999999999999", "o=-9.x.9999", "all=", "e=1",
             "id__exact=x", "pk__in=1,x", "nothing__gt=1", "_to_field=x", "_popup=1"]  # fmt: skip


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), lasting_world() as made:
        yield made


@pytest.fixture
def browser(world):
    made = Client(raise_request_exception=False)
    made.force_login(world.people["admin"])
    return made


class Fields(HTMLParser):
    """Names of a page's form, with what would be sent if nobody changed it."""

    def __init__(self, page):
        super().__init__()
        self.given, self.inside = {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in {"input", "select", "textarea", "button"} and attrs.get("name"):
            self.inside = attrs["name"]
            if attrs.get("type") not in {"checkbox", "radio"} or "checked" in attrs:
                self.given.setdefault(self.inside, attrs.get("value") or "")
        elif tag == "option" and "selected" in attrs:
            self.given[self.inside] = attrs.get("value") or ""


@contextmanager
def taken_back():
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def send(browser, path, given):
    with taken_back():
        answer = browser.generic("POST", path, encoded(given), content_type=FORM)
    told = f"{path} answered {answer.status_code} to {str(given)[:300]}"
    assert answer.status_code < 500, told
    assert b"Traceback" not in answer.content, told


def forms():
    """Each page of a row that is there, or of a new one, and each action on a list."""
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        row = model._default_manager.order_by("pk").first()
        yield reverse(f"{name}_add")
        yield reverse(f"{name}_changelist")
        if row:
            yield reverse(f"{name}_change", args=[row.pk])
            yield reverse(f"{name}_delete", args=[row.pk])


def test_a_bad_text_in_any_field_is_refused_or_taken_as_text(browser):
    paths = sorted({*ADMIN_PATHS, *forms()} - {"/admin/logout/"})
    tried = 0
    for path in paths:
        with taken_back():
            page = browser.get(path)
        given = Fields(page.content.decode()).given if page.status_code == 200 else {}
        given.pop("csrfmiddlewaretoken", None)
        for text in (BAD | ODD_NUMBERS | ODD_WORDS).values():
            send(browser, path, dict.fromkeys(given, text) | {"action": text})
        for name in given:
            for text in ("a\0b", "\ud800", "-1", "9" * 19, "x" * 21_000):
                send(browser, path, given | {name: text})
                tried += 1
    assert tried > 200


def test_odd_words_in_the_address_of_a_list_are_refused(browser):
    for model in admin.site._registry:
        path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        for odd in ODD_LISTS:
            with taken_back():
                answer = browser.get(f"{path}?{odd}")
            assert answer.status_code < 500, f"{path}?{odd}"
