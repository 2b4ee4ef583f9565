import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.utils import translation

from dedup import blind, scoring, starting, suggesting
from support import outbox, permissions
from tests.factories import ReleaseFactory, UserFactory
from tests.fakes import NEITHER, Dice, FakeScorer

# Pages name their files as they lie in the sources: nothing has to be collected first.
settings.STORAGES["staticfiles"]["BACKEND"] = (
    "django.contrib.staticfiles.storage.StaticFilesStorage"
)
settings.SECOND_FACTOR = False  # what asks for it is tested by itself
settings.DEDUP_SAMPLED_PER_QUESTION = 0  # which pairs are drawn hangs on their ids
settings.WHITENOISE_AUTOREFRESH = True  # else each test client lists all of them first


def _person(role, **fields):
    person = UserFactory(**fields)
    person.groups.add(Group.objects.get(name=role))
    return person


@pytest.fixture(autouse=True)
def _in_the_language_of_the_site():
    """A page asked for in German leaves its thread German: the next test begins afresh."""
    with translation.override(settings.LANGUAGE_CODE):
        yield


@pytest.fixture(autouse=True)
def roles(request):
    if request.node.get_closest_marker("django_db") or "db" in request.fixturenames:
        permissions.create_roles()  # a flush between tests takes them away
        cache.clear()


@pytest.fixture(autouse=True)
def _no_worker_was_missed(monkeypatch):
    monkeypatch.setattr(suggesting, "_missed", 0)
    monkeypatch.setattr(suggesting, "_silent_until", 0.0)


@pytest.fixture(autouse=True)
def dice(monkeypatch):
    """What decides whether the next card comes without its score: by default, none does."""
    dice = Dice(NEITHER)
    monkeypatch.setattr(blind, "CHANCE", dice)
    return dice


@pytest.fixture
def customer(db):
    return _person(permissions.CUSTOMER)


@pytest.fixture
def agent(db):
    return _person(permissions.AGENT)


@pytest.fixture
def admin(db):
    return _person(permissions.ADMIN)


@pytest.fixture
def bells(monkeypatch):
    """Bells that were rung, instead of a broker."""
    rung = []
    monkeypatch.setattr(outbox, "ring", lambda **_: rung.append("bell") or True)
    return rung


@pytest.fixture
def scorer(db, monkeypatch):
    """A fake in place of the active release's networks."""
    fake = FakeScorer()
    release = ReleaseFactory(is_active=True)
    monkeypatch.setattr(scoring, "active_scorer", lambda: (release, fake))
    fake.release = release
    return fake


@pytest.fixture
def enough_verdicts(monkeypatch):
    """A training may begin, whatever people decided: for tests of something else."""
    monkeypatch.setattr(starting, "require_verdicts", lambda known: None)
