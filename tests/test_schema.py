"""The API, asked by what its own description says may be sent, and by what it says may not: no
failure, and no answer that the description does not name. Each call is taken back."""

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from support.models import ApiToken
from support.wsgi import application
from tests.test_access import lasting_world

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("world")]
NEGATIVE = schemathesis.GenerationMode.NEGATIVE
NOT_ASKED = [
    # It sends each request twice more; tests.test_access asks every route without a token.
    ignored_auth,
    # A text may have to be one that can be seen, an id that of a row: no schema says that. Whether
    # good requests are taken is asked below.
    positive_data_acceptance,
]


def served(*, at_edges, examples):
    """The description, as it is served; `at_edges` asks each bound of each field as well."""
    config = {
        "seed": 1,
        "generation": {
            "deterministic": True,
            "max-examples": examples,
            "with-security-parameters": False,  # tokens are given
        },
        "phases": {"coverage": {"enabled": at_edges}},
    }
    return schemathesis.openapi.from_wsgi(
        "/api/v1/schema/?format=json", application, config=schemathesis.Config.from_dict(config)
    )


@pytest.fixture(scope="module")
def briefly():
    return served(at_edges=False, examples=10)


@pytest.fixture(scope="module")
def thoroughly():
    return served(at_edges=True, examples=10)


in_brief = schemathesis.pytest.from_fixture("briefly")
in_full = schemathesis.pytest.from_fixture("thoroughly")
any_time = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _known_to_schemathesis(request):
    """It reads and writes this name of a test, which pytest has no more since 9.2."""
    request.node._nodeid = request.node.nodeid


@pytest.fixture(scope="module", autouse=True)
def _requests_close_no_connection():
    """As with Django's own test client: else the first would end the transaction."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker):
    """Made once: what a call does to it is taken back."""
    with django_db_blocker.unblock(), lasting_world() as made:
        yield made


@pytest.fixture(scope="module")
def done():
    """What was answered well, by operation."""
    return set()


@pytest.fixture
def call(world, done, settings):
    """Sends a case as somebody, and takes back what it did."""
    settings.DEDUP_SUGGEST_SECONDS = 0.1  # there is no worker to wait for

    def call(case, role):
        about_rows(case, world.rows)
        with transaction.atomic():
            _, secret = ApiToken.objects.issue(user=world.people[role], name="schema")
            headers = {"Authorization": f"Bearer {secret}"}
            answer = case.call_and_validate(headers=headers, excluded_checks=NOT_ASKED)
            transaction.set_rollback(True)
        assert answer.status_code != 401
        if answer.status_code < 300:
            done.add(case.operation.label)

    return call


def about_rows(case, rows):
    """Have what may be sent be about rows that are there."""
    kinds = {where: part.mode for where, part in case.meta.components.items()}
    if "id" in case.path_parameters and kinds.get(ParameterLocation.PATH) != NEGATIVE:
        case.path_parameters["id"] = rows[ABOUT[case.path.split("/")[3]]].pk
    if isinstance(case.body, dict) and kinds.get(ParameterLocation.BODY) != NEGATIVE:
        known = {
            "product": rows["public"].product.slug,
            "duplicate": rows["open"].newer_id,
            "canonical": rows["open"].older_id,
            "versions": {},
        }
        case.body.update({name: known[name] for name in known.keys() & case.body.keys()})


ABOUT = {
    "questions": "mine", "flags": "open", "reviews": "review", "merges": "merge",
    "releases": "shipped", "jobs": "job",
}  # fmt: skip


@in_brief.parametrize()
@any_time
def test_what_a_customer_sends_is_answered_as_described(case, call):
    call(case, "customer")


@in_brief.parametrize()
@any_time
def test_what_an_agent_sends_is_answered_as_described(case, call):
    call(case, "agent")


@in_full.parametrize()
@any_time
def test_what_an_admin_sends_is_answered_as_described(case, call):
    call(case, "admin")


def test_all_that_is_described_was_also_done(thoroughly, done):
    described = {found.ok().label for found in thoroughly.get_all_operations()}

    assert described - done == set()
