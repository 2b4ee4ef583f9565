"""Every route, asked by every role about every kind of row. One that is not here fails a test."""

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client
from django.urls import get_resolver, reverse

from dedup import review, starting
from dedup.ml.artifact import read_manifest
from dedup.models import (
    Alert,
    Deflection,
    Delivery,
    Flag,
    Job,
    Release,
    Report,
    Review,
    SavedView,
    ThresholdChange,
)
from support import guests, mailing, merging, permissions
from support.models import (
    Acceptance,
    Answer,
    AnswerVote,
    AuditEntry,
    GuestRequest,
    MailStop,
    Merge,
    OutboxEntry,
    Question,
    Subscription,
    User,
    Vote,
)
from tests import conftest
from tests.factories import AnswerFactory, FlagFactory, QuestionFactory, ReleaseFactory, UserFactory

pytestmark = pytest.mark.django_db
ROLES = ("guest", "customer", "other", "agent", "admin")
MISSING = 10**9
KEPT = [
    Question, Answer, Acceptance, Vote, AnswerVote, Subscription, Merge, Review, OutboxEntry, User,
    AuditEntry, Deflection, GuestRequest, MailStop, SavedView, Job, Report, Delivery,
    ThresholdChange,
]  # fmt: skip

# One word for each role, in the order above. `login` is the way to the login page, `302=` a way
# back with a word of refusal. Wherever it is refused, nothing may have changed.
# Rows: `public` was asked by other, `mine` is private to customer, `private` to other; `merged` was
# asked by customer and is a duplicate; `secret` is a pair of a private and a public question.
READ = {
    "public": "200 200 200 200 200",
    "mine": "404 200 404 200 200",
    "private": "404 404 200 200 200",
    "merged": "302 302 302 302 302",
    "missing": "404 404 404 404 404",
}
READERS_DO = {
    "public": "login 302 302 302 302",
    "mine": "login 302 404 302 302",
    "private": "login 404 302 302 302",
    "merged": "login 302 302 302 302",
    "missing": "login 404 404 404 404",
}
GUESTS_DO = {row: said.replace("login", "302") for row, said in READERS_DO.items()}
GUESTS_DO |= {row: said.replace("302", "404", 1) for row, said in GUESTS_DO.items()
              if row in {"mine", "private", "missing"}}  # fmt: skip
ASKERS_DO = {
    "public": "login 404 302 404 404",
    "mine": "login 302 404 404 404",
    "private": "login 404 302 404 404",
    "merged": "login 302 404 404 404",
    "missing": "login 404 404 404 404",
}
ASKERS_SEE = {row: said.replace("302", "200") for row, said in ASKERS_DO.items()}
API_READ = {
    "public": "401 200 200 200 200",
    "mine": "401 200 404 200 200",
    "private": "401 404 200 200 200",
    "merged": "401 200 200 200 200",
    "missing": "401 404 404 404 404",
}
NEVER = "405 405 405 405 405"
POST_ONLY = "login 405 405 405 405"


def each(rows, said):
    return dict.fromkeys(rows, said)


def agents(row_codes):
    """Customers and guests get 403 whatever the row is; agents and admins what is said."""
    return {row: f"403 403 403 {said}" for row, said in row_codes.items()}


def api_agents(row_codes):
    return {row: f"401 403 403 {said}" for row, said in row_codes.items()}


EXPECTED = {
    # pages of the portal
    "home": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
    "question": {"GET": READ, "POST": each(READ, NEVER)},
    "ask": {"GET": {"": "200 200 200 200 200"}, "POST": {"": "302 302 302 302 302"}},
    "similar": {"GET": {"": NEVER}, "POST": {"": "200 200 200 200 200"}},
    "opened": {"GET": {"": NEVER}, "POST": {"": "204 204 204 204 204"}},
    "solved": {"GET": {"": NEVER}, "POST": {"": "302 302 302 302 302"}},
    "edit_question": {"GET": ASKERS_SEE, "POST": ASKERS_DO},
    "answer": {"GET": each(READ, POST_ONLY), "POST": READERS_DO},
    "vote": {"GET": each(READ, POST_ONLY), "POST": READERS_DO},
    "follow": {"GET": each(READ, POST_ONLY), "POST": READERS_DO},
    "guest_follow": {"GET": each(READ, NEVER), "POST": GUESTS_DO},
    "confirm_sent": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
    "confirm": {
        "GET": {"asked by mail": READ["public"], "missing": "410 410 410 410 410"},
        "POST": {"asked by mail": READ["merged"], "missing": "410 410 410 410 410"},
    },
    "answer_vote": {"GET": each(READ, POST_ONLY), "POST": READERS_DO},
    "accept": {"GET": each(READ, POST_ONLY), "POST": ASKERS_DO},
    "dispute": {
        "GET": each(READ, POST_ONLY),
        "POST": {
            "public": "login 302= 302= 302= 302=",
            "mine": "login 302= 404 302= 302=",
            "private": "login 404 302= 302= 302=",
            "merged": "login 302 302= 302= 302=",
            "missing": "login 404 404 404 404",
        },
    },
    "guides": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
    "guide": {
        "GET": {"written": "200 200 200 200 200", "missing": "404 404 404 404 404"},
        "POST": each(["written", "missing"], NEVER),
    },
    "mine": {"GET": {"": "login 200 200 200 200"}, "POST": {"": POST_ONLY}},
    "preferences": {"GET": {"": "login 200 200 200 200"}, "POST": {"": "login 302 302 302 302"}},
    "use_keys": {"GET": {"": POST_ONLY}, "POST": {"": "login 204 204 204 204"}},
    # who has not proved of late who they are is asked to
    "export": {"GET": {"": "login 200 200 200 200"}, "POST": {"": "login 302= 302= 302= 302="}},
    "erase": {"GET": {"": "login 200 200 200 200"}, "POST": {"": "login 302= 302= 302= 302="}},
    # the token decides, not who is signed in; `forged` is one with another's signature
    "unsubscribe": {
        method: {
            **each(["public", "mine", "merged"], "200 200 200 200 200"),
            **each(["forged", "missing"], "404 404 404 404 404"),
        }
        for method in ("GET", "POST")
    },
    "set_language": {
        "GET": {"": "302 302 302 302 302"},
        "POST": {"": "302= 302= 302= 302= 302="},  # a cookie of the browser; no row
    },
    "livez": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
    "readyz": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
    # there is no worker here, and no release: that is what it says
    "health_of_detection": {"GET": {"": "503 503 503 503 503"}, "POST": {"": NEVER}},
    # pages of agents and admins
    "review_queue": {"GET": agents({"": "200 200"}), "POST": {"": NEVER}},
    "review_next": {"GET": agents({"": "302 302"}), "POST": {"": NEVER}},
    "review_ahead": {"GET": agents({"": "200 200"}), "POST": {"": NEVER}},
    "review_hold": {"GET": {"": NEVER}, "POST": agents({"": "200 200"})},
    "review_let_go": {"GET": {"": NEVER}, "POST": agents({"": "204 204"})},
    "review_view_save": {"GET": {"": NEVER}, "POST": agents({"": "302 302"})},
    "review_many": {"GET": {"": NEVER}, "POST": agents({"": "302 302"})},
    "review_view_drop": {
        "GET": each(["view", "missing"], NEVER),
        "POST": agents({"view": "302 404", "missing": "404 404"}),
    },
    "review_overrule": {
        "GET": each(["decided", "missing"], NEVER),
        "POST": agents({"decided": "302 302", "missing": "404 404"}),
    },
    "review_card": {
        "GET": agents({"open": "200 200", "secret": "200 200", "missing": "404 404"}),
        "POST": each(["open", "secret", "missing"], NEVER),
    },
    "review_take_over": {
        "GET": each(["open", "secret", "missing"], NEVER),
        "POST": agents({"open": "302 302", "secret": "302 302", "missing": "404 404"}),
    },
    "review_decide": {
        "GET": each(["open", "secret", "missing"], NEVER),
        "POST": agents({"open": "302 302", "secret": "302 302", "missing": "404 404"}),
    },
    "review_cluster": {
        "GET": agents({"open": "200 200", "secret": "302 302", "missing": "404 404"}),
        "POST": each(["open", "secret", "missing"], NEVER),
    },
    "review_cluster_decide": {
        "GET": each(["open", "secret", "missing"], NEVER),
        "POST": agents({"open": "302 302", "secret": "409 409", "missing": "404 404"}),
    },
    "review_undo": {
        "GET": each(["review", "missing"], NEVER),
        "POST": agents({"review": "302 404", "missing": "404 404"}),
    },
    "merge_other": {
        "GET": agents({"public": "302= 302=", "mine": "302= 302=", "missing": "404 404"}),
        "POST": each(["public", "mine", "missing"], NEVER),
    },
    "merge_many": {"GET": {"": NEVER}, "POST": agents({"": "403 302"})},
    "unmerge_many": {"GET": {"": NEVER}, "POST": agents({"": "302= 302="})},
    "send_back": {
        "GET": each(["waiting", "missing"], NEVER),
        "POST": agents({"waiting": "302= 302", "missing": "404 404"}),
    },
    "link": {
        "GET": each(["open", "secret", "missing"], NEVER),
        "POST": agents({"open": "302= 302=", "secret": "302 302", "missing": "404 404"}),
    },
    "agreement": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "deflection": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "jobs": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "start_training": {"GET": {"": NEVER}, "POST": agents({"": "403 302"})},
    "start_backfill": {"GET": {"": NEVER}, "POST": agents({"": "403 302"})},
    "start_adopt": {"GET": {"": NEVER}, "POST": agents({"": "403 302"})},
    "job": {
        "GET": agents({"job": "403 200", "missing": "403 404"}),
        "POST": each(["job", "missing"], NEVER),
    },
    "stop_job": {
        "GET": each(["job", "missing"], NEVER),
        "POST": agents({"job": "403 302", "missing": "403 404"}),
    },
    "releases": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "roll_back": {"GET": agents({"": "403 200"}), "POST": agents({"": "403 409"})},
    "promote": {
        "GET": agents({"release": "403 200", "missing": "403 404"}),
        "POST": agents({"release": "403 409", "missing": "403 404"}),
    },
    "shadow": {
        "GET": each(["release", "missing"], NEVER),
        "POST": agents({"release": "403 302=", "missing": "403 404"}),
    },
    "start_recheck": {"GET": {"": NEVER}, "POST": agents({"": "403 302"})},
    "release": {
        "GET": agents({"release": "403 200", "shipped": "403 200", "missing": "403 404"}),
        "POST": each(["release", "missing"], NEVER),
    },
    "release_evaluate": {
        "GET": each(["release", "missing"], NEVER),
        "POST": agents({"release": "403 302", "missing": "403 404"}),
    },
    "release_download": {
        "GET": agents({"release": "403 404", "shipped": "403 200", "missing": "403 404"}),
        "POST": each(["shipped", "missing"], NEVER),
    },
    "release_card": {
        "GET": agents({"release": "403 404", "shipped": "403 200", "missing": "403 404"}),
        "POST": each(["shipped", "missing"], NEVER),
    },
    "thresholds": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "threshold_move": {"GET": {"": NEVER}, "POST": agents({"": "403 302"})},
    "threshold_take_back": {
        "GET": each(["change", "missing"], NEVER),
        "POST": agents({"change": "403 302", "missing": "403 404"}),
    },
    "monitoring": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "audit_week": {"GET": agents({"": "403 200"}), "POST": {"": NEVER}},
    "redeliver": {
        "GET": each(["told", "missing"], NEVER),
        "POST": agents({"told": "403 302", "missing": "403 404"}),
    },
    "to_merge": {"GET": agents({"": "200 200"}), "POST": {"": NEVER}},
    "merge": {
        "GET": agents({"open": "200 200", "secret": "200 200", "missing": "404 404"}),
        "POST": agents({"open": "403 302", "secret": "403 409", "missing": "404 404"}),
    },
    "unmerge": {
        "GET": agents({"merge": "200 200", "missing": "404 404"}),
        "POST": agents({"merge": "403 302", "missing": "404 404"}),
    },
    # programs
    "api:question-list": {
        "GET": {"": "401 200 200 200 200"},
        "POST": {"": "401 201 201 201 201"},
    },
    "api:question-detail": {
        "GET": API_READ,
        "POST": each(READ, "401 405 405 405 405"),
        "PATCH": {
            "public": "401 403 200 403 403",
            "mine": "401 200 404 403 403",
            "private": "401 404 200 403 403",
            "merged": "401 200 403 403 403",
            "missing": "401 404 404 404 404",
        },
        "DELETE": each(READ, "401 405 405 405 405"),
    },
    "api:question-answers": {
        "GET": API_READ,
        "POST": {row: said.replace("200", "201") for row, said in API_READ.items()},
    },
    "api_similar": {
        "GET": {"": "401 405 405 405 405"},
        "POST": {"": "401 200 200 200 200"},
    },
    "dedup_api:flag-list": {
        "GET": api_agents({"": "200 200"}),
        "POST": api_agents({"": "405 405"}),
    },
    "dedup_api:flag-detail": {
        "GET": api_agents({"open": "200 200", "secret": "200 200", "missing": "404 404"}),
        "POST": api_agents({"open": "405 405"}),
        "PATCH": api_agents({"open": "405 405"}),
        "DELETE": api_agents({"open": "405 405"}),
    },
    "dedup_api:flag-reviews": {
        "GET": api_agents({"open": "405 405"}),
        "POST": api_agents({"open": "201 201", "secret": "201 201", "missing": "404 404"}),
    },
    "dedup_api:review-list": {
        "GET": api_agents({"": "200 200"}),
        "POST": api_agents({"": "405 405"}),
    },
    "dedup_api:review-detail": {
        "GET": api_agents({"review": "200 200", "missing": "404 404"}),
        "POST": api_agents({"review": "405 405"}),
        "DELETE": api_agents({"review": "405 405"}),
    },
    "dedup_api:review-undo": {
        "GET": api_agents({"review": "405 405"}),
        "POST": api_agents({"review": "200 409", "missing": "404 404"}),
    },
    "dedup_api:merge-list": {
        "GET": api_agents({"": "200 200"}),
        "POST": api_agents({"": "403 201"}),
    },
    "dedup_api:merge-detail": {
        "GET": api_agents({"merge": "200 200", "missing": "404 404"}),
        "POST": api_agents({"merge": "405 405"}),
        "DELETE": api_agents({"merge": "405 405"}),
    },
    "dedup_api:merge-undo": {
        "GET": api_agents({"merge": "405 405"}),
        "POST": api_agents({"merge": "403 200", "missing": "404 404"}),
    },
    "dedup_api:release-list": {
        "GET": api_agents({"": "200 200"}),
        "POST": api_agents({"": "405 405"}),
    },
    "dedup_api:release-detail": {
        "GET": api_agents({"release": "200 200", "missing": "404 404"}),
        "POST": api_agents({"release": "405 405"}),
    },
    "dedup_api:release-gates": {
        "GET": api_agents({"release": "403 200", "missing": "403 404"}),
        "POST": api_agents({"release": "403 405"}),
    },
    "dedup_api:release-promote": {
        "GET": api_agents({"release": "403 405"}),
        "POST": api_agents({"release": "403 409", "missing": "403 404"}),
    },
    "dedup_api:release-back": {
        "GET": api_agents({"release": "403 405"}),
        "POST": api_agents({"release": "403 409", "missing": "403 404"}),
    },
    "dedup_api:release-shadow": {
        "GET": api_agents({"release": "403 405"}),
        "POST": api_agents({"release": "403 409", "missing": "403 404"}),
    },
    "dedup_api:release-end-shadow": {
        "GET": api_agents({"release": "403 405"}),
        "POST": api_agents({"release": "403 200", "missing": "403 404"}),
    },
    "dedup_api:job-list": {
        "GET": api_agents({"": "403 200"}),
        "POST": api_agents({"": "403 202"}),
    },
    "dedup_api:job-detail": {
        "GET": api_agents({"job": "403 200", "missing": "403 404"}),
        "POST": api_agents({"job": "403 405"}),
        "DELETE": api_agents({"job": "403 405"}),
    },
    "dedup_api:job-stop": {
        "GET": api_agents({"job": "403 405"}),
        "POST": api_agents({"job": "403 200", "missing": "403 404"}),
    },
    "dedup_api:release-report": {
        "GET": api_agents({"release": "403 200", "shipped": "403 404", "missing": "403 404"}),
        "POST": api_agents({"release": "403 405"}),
    },
    "schema": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
    "api_docs": {"GET": {"": "200 200 200 200 200"}, "POST": {"": NEVER}},
}
SIGNED_IN_ONLY = {
    "account_logout", "account_email", "account_change_password", "account_set_password",
    "account_reauthenticate", "mfa_index", "mfa_reauthenticate", "mfa_activate_totp",
    "mfa_deactivate_totp", "mfa_view_recovery_codes", "mfa_generate_recovery_codes",
    "mfa_download_recovery_codes", "mfa_list_webauthn", "mfa_add_webauthn",
    "mfa_reauthenticate_webauthn", "mfa_remove_webauthn", "mfa_edit_webauthn", "usersessions_list",
}  # fmt: skip
FOR_GUESTS = {
    "account_login", "account_signup", "account_inactive", "account_email_verification_sent",
    "account_reset_password", "account_reset_password_done", "account_reset_password_from_key",
    "account_reset_password_from_key_done", "account_confirm_email", "account_confirm_login_code",
    "account_request_login_code", "mfa_authenticate", "mfa_login_webauthn",
}  # fmt: skip


@dataclass
class World:
    """People, and one row of each kind."""

    people: dict
    rows: dict  # name -> Question, Flag, ...
    answers: dict


@pytest.fixture
def world(customer, agent, admin, enough_verdicts):
    return make_world(customer, agent, admin)


@contextmanager
def lasting_world():
    """Made once for a whole module: all is taken back at its end."""
    with pytest.MonkeyPatch.context() as patched, transaction.atomic():
        patched.setattr(starting, "require_verdicts", lambda known: None)
        permissions.create_roles()
        roles = (permissions.CUSTOMER, permissions.AGENT, permissions.ADMIN)
        yield make_world(*(conftest._person(role) for role in roles))
        transaction.set_rollback(True)


def make_world(customer, agent, admin):
    other = UserFactory()
    public = QuestionFactory(asked_by=other)
    rows = {
        "public": public,
        "mine": QuestionFactory(asked_by=customer, audience="private"),
        "private": QuestionFactory(asked_by=other, audience="private"),
        "merged": QuestionFactory(asked_by=customer),
        "open": FlagFactory(release=ReleaseFactory(sure_threshold=0.8)),
    }
    FlagFactory(older=rows["open"].older, release=rows["open"].release)  # three are a cluster
    rows["secret"] = FlagFactory(older=rows["private"], newer=QuestionFactory())
    rows["review"] = rows["open"].reviews.create(
        verdict="skipped", by=agent, probability=0.9, release="r"
    )
    rows["release"] = rows["open"].release
    Report.objects.create(release=rows["release"], figures={})
    shipped = read_manifest(settings.DEDUP_ARTIFACTS / settings.DEDUP_RELEASE)
    known = Release.objects.filter(fingerprint=shipped.fingerprint).first()
    rows["shipped"] = known or ReleaseFactory(
        name=shipped.name, fingerprint=shipped.fingerprint, manifest=shipped.raw
    )
    rows["change"] = ThresholdChange.objects.create(
        release=rows["release"], which="sure", before=0.9, after=0.8, by=admin
    )
    rows["decided"] = review.dismiss(flag=FlagFactory(), by=agent)
    rows["waiting"] = FlagFactory()
    review.confirm(flag=rows["waiting"], canonical=rows["waiting"].older, by=agent)
    rows["job"] = Job.objects.create(kind="distil")
    rows["view"] = SavedView.objects.create(name="Mine", query="band=likely", owner=agent)
    rows["asked by mail"] = GuestRequest.objects.create(
        email="guest@example.com", kind="question", title="A guest's", product=public.product
    )
    alert = Alert.objects.create(rule="quarantined", value=1, worst=1, bound=0)
    rows["told"] = alert.deliveries.create(is_over=False, channel="mail")
    answers = {name: AnswerFactory(question=rows[name]) for name in READ if name in rows}
    rows["merge"] = merging.merge(duplicate=rows["merged"], canonical=public, by=admin)
    people = {"guest": None, "customer": customer, "other": other, "agent": agent, "admin": admin}
    return World(people, rows, answers)


def routes():
    """All routes as (name, its pattern), without those of Django's admin."""
    return [(name, route) for name, route in walk(get_resolver()) if not route.startswith("admin/")]


def walk(resolver, prefix="", spaces=()):
    for pattern in resolver.url_patterns:
        route = f"{prefix}{pattern.pattern}"
        if hasattr(pattern, "url_patterns"):
            inner = (*spaces, pattern.namespace) if pattern.namespace else spaces
            yield from walk(pattern, route, inner)
        else:
            yield ":".join((*spaces, pattern.name or "")), route


def address(world, route, row):
    """The path of a route about a row."""
    if not row:
        return reverse(route)
    if route == "guide":
        return reverse(route, args=["operators", "settings" if row == "written" else row])
    found = world.rows.get(row)
    pk = found.pk if found else MISSING
    if route == "confirm":
        return reverse(route, args=[guests.token(found or GuestRequest(pk=MISSING))])
    if route == "unsubscribe":
        return reverse(route, args=[stop_token(world, row)])
    if route == "answer_vote":
        return reverse(route, args=[world.answers[row].pk if found else MISSING])
    if route == "accept":
        return reverse(route, args=[pk, world.answers[row].pk if found else MISSING])
    if route in {"merge", "link"}:
        pair = (found.newer_id, found.older_id) if found else (MISSING, MISSING + 1)
        return reverse(route, args=pair)
    return reverse(route, args=[pk])


def stop_token(world, row):
    """The token of the customer's mail about a row."""
    customer, other = world.people["customer"].pk, world.people["other"].pk
    if row == "missing":
        return mailing.token(mailing.STOP, MISSING, MISSING)
    if row == "forged":
        given = mailing.token(mailing.STOP, customer, world.rows["public"].pk)
        wanted = mailing.token(mailing.STOP, other, world.rows["public"].pk)
        return wanted.rpartition("-")[0] + "-" + given.rpartition("-")[2]
    return mailing.token(mailing.STOP, customer, world.rows[row].pk)


def body(world, route, row):
    """What is sent: good, wherever the row and the person are."""
    audience = getattr(world.rows.get(row), "audience", "public")
    product = world.rows["public"].product
    api_text = {"title": "How do I dim it?", "body": "Too bright."}
    flag = world.rows["open"]
    versions = {f"version-{q.pk}": q.version for q in Question.objects.all()}
    waiting = world.rows["waiting"]
    shown = {f"closes-{waiting.pk}": waiting.newer_id, f"stays-{waiting.pk}": waiting.older_id}
    members = dict.fromkeys((f"member-{pk}" for pk in flag.question_ids), "same")
    return {
        "ask": {**api_text, "product": product.pk, "audience": "public", "seen_similar": "yes",
                "email": "guest@example.com"},
        "guest_follow": {"email": "guest@example.com"},
        "unsubscribe": {"List-Unsubscribe": "One-Click"},
        "similar": {"title": "How do I dim it?"},
        "preferences": {"theme": "dark", "time_zone": "Asia/Tokyo", "mail_pace": "daily"},
        "solved": {"question": world.rows["public"].pk},
        "edit_question": {**api_text, "audience": audience, "seen": "1"},
        "answer": {"body": "Turn it."},
        "vote": {"on": "1"},
        "answer_vote": {"on": "1"},
        "follow": {"on": "1"},
        "dispute": {"reason": "Mine is red."},
        "review_decide": {"verdict": "dismissed"},
        "review_cluster_decide": versions | members,
        "review_overrule": {"verdict": "related"},
        "merge_many": versions | shown | {"flag": waiting.pk, "apply": "1"},
        "send_back": {"note": "Another lamp."},
        "start_training": {"base": "current", "epochs": "3", "minutes": "5", "seed": "1"},
        "start_adopt": {"checkpoint": "owner/some-name", "languages": "en"},
        "threshold_move": {
            "release": world.rows["release"].pk, "which": "flag", "before": "0.8", "after": "0.7",
        },
        "review_view_save": {"name": "Likely ones", "band": "likely"},
        "review_many": {"flag": world.rows["open"].pk, "verdict": "related", "apply": "1"},
        "merge": versions,
        "api:question-list": {**api_text, "product": product.slug},
        "api:question-detail": {"title": "How do I dim it?"},
        "api:question-answers": {"body": "Turn it."},
        "api_similar": {"title": "How do I dim it?"},
        "dedup_api:flag-reviews": {"verdict": "dismissed"},
        "dedup_api:merge-list": {"duplicate": flag.newer_id, "canonical": flag.older_id},
    }.get(route, {})  # fmt: skip


def client_of(person):
    client = Client()
    if person:
        client.force_login(person)
    return client


def asked(client, method, path, given):
    if method == "GET":
        return client.get(path)
    if path.startswith("/api/"):
        return client.generic(method, path, content_type="application/json", data=json.dumps(given))
    return client.post(path, given)


def outcome(answer):
    """A word for what was answered."""
    if answer.status_code == 302 and answer["Location"].startswith("/accounts/login/"):
        return "login"
    return str(answer.status_code)


def state():
    """All that is kept, but for when somebody was here last and which card an agent holds."""
    passing = {"last_login", "claimed_by", "claimed_until"}
    return [
        list(model.objects.order_by("pk").values_list(*(
            field.attname for field in model._meta.concrete_fields if field.name not in passing
        )))
        for model in [*KEPT, Flag]
    ]  # fmt: skip


CASES = [
    pytest.param(route, method, row, said, id=f"{method} {route} {row}".strip())
    for route, methods in EXPECTED.items()
    for method, rows in methods.items()
    for row, said in rows.items()
]


@pytest.mark.parametrize(("route", "method", "row", "said"), CASES)
def test_each_role_gets_what_it_is_to_get(world, route, method, row, said):
    path, given = address(world, route, row), body(world, route, row)
    got = []
    for role, expected in zip(ROLES, said.split(), strict=True):
        client, before = client_of(world.people[role]), state()
        with transaction.atomic():
            word = outcome(asked(client, method, path, given))
            has_changed = state() != before
            transaction.set_rollback(True)
        refused = word == "login" or word[0] == "4" or expected == "302="
        got.append(word + ("=" if expected == "302=" and not has_changed else ""))
        assert not (refused and has_changed), f"{role} got {word}, and changed something"
        if method != "GET" and word in {"201", "302"} and expected == word:
            is_passing = route in {"review_undo", "review_take_over"}
            assert has_changed or is_passing, f"{role} got {word}, and nothing was done"

    assert " ".join(got) == said


def test_no_route_is_without_its_expectation():
    known = set(EXPECTED) | SIGNED_IN_ONLY | FOR_GUESTS

    assert {name for name, _ in routes()} == known


def test_no_route_forgets_a_method_or_a_row():
    for route, methods in EXPECTED.items():
        assert {"GET", "POST"} <= set(methods), route
        has_row = any(rows != {"": rows.get("")} for rows in methods.values())
        for method, rows in methods.items():
            never = all(
                set(said.split()) <= {"405", "401", "403", "login"} for said in rows.values()
            )
            assert not has_row or never or "missing" in rows, (route, method)


@pytest.mark.parametrize(
    ("route", "method"),
    [(route, method) for route, methods in EXPECTED.items() for method, rows in methods.items()
     if "private" in rows],
)  # fmt: skip
def test_a_private_row_and_a_missing_one_give_the_same_answer(world, route, method):
    given = body(world, route, "private")
    client = client_of(world.people["customer"])
    answers = [asked(client, method, address(world, route, row), given)
               for row in ("private", "missing")]  # fmt: skip

    private, missing = (
        re.sub(
            r'(csrfmiddlewaretoken" value="|"request_id": ?")[^"]*|\d{2,}', "", a.content.decode()
        )
        for a in answers
    )
    assert answers[0].status_code == answers[1].status_code
    assert private == missing
    assert set(answers[0].headers) == set(answers[1].headers)


FORM = "application/x-www-form-urlencoded"
ODD_FORMS = [
    (b"title=%00&body=%ff%fe&reason=%00&verdict=%00&canonical=%00", FORM),
    (b"body=a%00b&on=1", FORM),
    (b"ti%00tle=x", FORM),
    (b"canonical=" + b"9" * 5000 + b"&seen=" + b"9" * 5000 + b"&product=%c2%b2", FORM),
    ("&".join(f"a{number}=1" for number in range(1500)).encode(), FORM),
    (b"garbage", "multipart/form-data; boundary=x"),
    (b"garbage", "multipart/form-data"),
    (b"{}", "application/json"),
]
ODD_QUERIES = [
    "page=%F0", "page=99999999999999999999", "page=-1", "q=%E2%80%8B%E2%80%8B%E2%80%8B",
    "duplicate=" + "9" * 5000, "state=x&product=%FF", "q=" + "x" * 5000, "q=%27%5C%28%26%7C%21%3A",
]  # fmt: skip


@pytest.mark.parametrize("role", ["customer", "other", "admin"])
@pytest.mark.parametrize(
    "route", [route for route in EXPECTED if "api" not in route and route != "schema"]
)
def test_no_form_and_no_query_makes_a_page_fail(world, route, role):
    client = client_of(world.people[role])
    for row in EXPECTED[route]["POST"]:
        path, given = address(world, route, row), body(world, route, row)

        answers = [client.get(f"{path}?{query}") for query in ODD_QUERIES]
        with transaction.atomic():
            answers += [client.post(path, form, content_type=kind) for form, kind in ODD_FORMS]
            refused = client.post(path, {**given, "reason": "a\0b"})
            transaction.set_rollback(True)

        codes = {str(answer.status_code) for answer in answers}
        wanted = set(EXPECTED[route]["GET"].get(row, "").split())  # a probe may say that it is ill
        assert {code for code in codes - wanted if code >= "500"} == set()
        assert refused.status_code == 400


def path_of(route, name):
    """Some path that a route of allauth matches."""
    values = {"pk": 1, "key": "abc", "uidb36": "1"}
    names = re.findall(r"<(?:\w+:)?(\w+)>", route)
    return reverse(name, kwargs={name: values[name] for name in names})


@pytest.mark.parametrize("name", sorted(SIGNED_IN_ONLY))
def test_guests_have_no_account_to_change(world, name):
    path = path_of(dict(routes())[name], name)
    before = state()

    for answer in (Client().get(path), Client().post(path, {})):
        assert outcome(answer) in {"login", "302", "404"}
        if answer.status_code == 302:
            assert answer["Location"].partition("?")[0] in {"/accounts/login/", "/"}
    assert state() == before


@pytest.mark.parametrize("name", sorted(FOR_GUESTS))
def test_the_way_in_never_fails_and_changes_no_row(world, name):
    path, before = path_of(dict(routes())[name], name), state()

    for role in ROLES:
        client = client_of(world.people[role])
        for answer in (client.get(path), client.post(path, {})):
            assert answer.status_code < 500, role
    assert state() == before


@pytest.mark.parametrize("name", sorted(SIGNED_IN_ONLY))
def test_ones_own_account_answers_to_every_role(world, name):
    path = path_of(dict(routes())[name], name)

    for role in ROLES[1:]:
        assert client_of(world.people[role]).get(path).status_code < 500, role


def admin_paths():
    for _name, route in walk(get_resolver()):
        if route.startswith("admin/"):
            filled = re.sub(r"<path:object_id>|<id>|<int:\w+>", "1", route)
            yield "/" + filled.replace("(?P<url>.*)$", "nothing/")


ADMIN_PATHS = sorted(set(admin_paths()))


@pytest.mark.parametrize("role", ["guest", "customer", "other", "agent"])
def test_djangos_admin_is_closed_to_all_but_admins(world, role):
    client, before = client_of(world.people[role]), state()
    ways_out = {"/admin/login/", "/accounts/login/", "/admin/"}

    for path in set(ADMIN_PATHS) - {"/admin/logout/"}:
        for answer in (client.get(path), client.post(path, {"action": "confirm"})):
            if answer.status_code != 403:
                assert answer.status_code == 302, path
                assert answer["Location"].partition("?")[0] in ways_out, path
    assert state() == before


def test_djangos_admin_answers_to_admins(world):
    client = client_of(world.people["admin"])

    for path in set(ADMIN_PATHS) - {"/admin/logout/"}:
        for answer in (client.get(path), client.post(path, {})):
            assert answer.status_code in {200, 302, 403, 404, 405}, path
    assert client.get("/admin/").status_code == 200


def test_the_walk_sees_all_of_djangos_admin():
    assert {"/admin/", "/admin/support/user/1/password/", "/admin/dedup/flag/"} <= set(ADMIN_PATHS)
    assert len(ADMIN_PATHS) > 60
