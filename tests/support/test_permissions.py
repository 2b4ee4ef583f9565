import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission
from django.utils import timezone

from support import permissions
from support.models import Question, User
from tests.factories import QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db


def test_every_permission_of_a_role_exists():
    """A name with a slip in it would be left out in silence."""
    known = {
        f"{app}.{name}"
        for app, name in Permission.objects.values_list("content_type__app_label", "codename")
    }

    assert all(given <= known for given in permissions.ROLES.values())


def test_the_roles_hold_what_they_are_to_hold():
    for role, given in permissions.ROLES.items():
        held = Group.objects.get(name=role).permissions
        names = {
            f"{p.content_type.app_label}.{p.codename}" for p in held.select_related("content_type")
        }
        assert names == given


def test_creating_the_roles_again_takes_nothing_away():
    extra = Permission.objects.get(codename="merge_question")
    group = Group.objects.get(name=permissions.AGENT)
    group.permissions.add(extra)

    permissions.create_roles()

    assert extra in group.permissions.all()


def test_a_customer_holds_no_permission(customer):
    assert customer.get_all_permissions() == set()
    assert not customer.is_agent


def test_agents_review_and_admins_merge_too(agent, admin):
    assert agent.is_agent
    assert agent.has_perm("dedup.review_flag")
    assert not agent.may_merge(1)
    assert admin.has_perm("dedup.review_flag")
    assert admin.may_merge(1)


def test_admins_and_superusers_administer_and_nobody_else(customer, agent, admin):
    superuser = UserFactory(is_superuser=True)
    staff = UserFactory(is_staff=True)  # a mark of Django's that no role gives
    left = UserFactory(is_superuser=True, is_active=False)

    may = [person for person in (customer, agent, admin, superuser, staff, left, AnonymousUser())
           if permissions.may_administer(person)]  # fmt: skip
    assert may == [admin, superuser]


def test_who_sees_a_private_question(customer, agent, admin):
    hidden = QuestionFactory(audience="private")
    people = [AnonymousUser(), customer, agent, admin, hidden.asked_by]

    sees = [hidden in Question.objects.visible_to(person) for person in people]

    assert sees == [False, False, True, True, True]


def test_an_agent_who_left_sees_what_a_stranger_sees(agent):
    hidden = QuestionFactory(audience="private")
    agent.is_active = False

    assert hidden not in Question.objects.visible_to(agent)


def test_a_guest_who_sets_a_password_is_none_any_more_and_nobody_becomes_one_by_losing_theirs():
    guest, person = User(is_guest=True), User()

    guest.set_password(None)
    person.set_password(None)
    assert (guest.is_guest, person.is_guest) == (True, False)

    guest.set_password("correct horse")
    assert not guest.is_guest
    assert guest.check_password("correct horse")


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ({}, "ada"),
        ({"display_name": "Ada L."}, "Ada L."),
        ({"is_guest": True}, "Guest"),
        ({"is_guest": True, "display_name": "Ada L."}, "Ada L."),
        ({"erased_at": timezone.now(), "display_name": "Ada L."}, "somebody who left"),
    ],
)
def test_a_person_is_called_what_they_said_or_else_what_they_are(given, called):
    assert str(User(username="ada", **given)) == called
