import pytest
from django.apps import apps
from django.contrib import admin as django_admin
from django.contrib.auth.models import Group
from django.urls import reverse

from support import outbox, permissions
from support.admin import BEYOND_ROLES, ReadOnly
from support.models import (
    ApiToken,
    AuditEntry,
    Merge,
    OutboxEntry,
    Product,
    Question,
    User,
)
from tests.factories import AnswerFactory, FlagFactory, ProductFactory, QuestionFactory, UserFactory

pytestmark = pytest.mark.django_db
OURS = [
    model
    for model in apps.get_models()
    if model in django_admin.site._registry and model._meta.app_label in {"support", "dedup"}
]
EDITED_BY_HAND = {"user", "product", "mergegrant"}  # and tokens, which can be deleted


def address(model, view, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}", args=args)


@pytest.fixture
def rows(agent):
    """At least one row of each kind that is read."""
    flag = FlagFactory()
    AnswerFactory(question=flag.older)
    Merge.objects.create(duplicate=flag.older, canonical=flag.newer, merged_by=agent)
    OutboxEntry.objects.create(question=flag.older)
    AuditEntry.objects.create(action="asked", by=agent, question=flag.older)
    flag.reviews.create(verdict="skipped", by=agent, probability=0.9, release="r")
    ApiToken.objects.issue(user=agent, name="script")


class TestDoor:
    def test_admins_come_in_by_their_role(self, client, admin):
        client.force_login(admin)

        assert not admin.is_staff
        assert client.get("/admin/").status_code == 200

    @pytest.mark.parametrize("role", ["customer", "agent"])
    def test_others_are_refused(self, client, role, request):
        client.force_login(request.getfixturevalue(role))

        answer = client.get("/admin/", follow=True)

        assert answer.status_code == 403

    def test_guests_go_through_the_sites_own_login(self, client):
        answer = client.get("/admin/", follow=True)

        assert answer.redirect_chain[-1][0].startswith("/accounts/login/?next=/admin/")

    def test_there_is_no_other_login(self, client, admin):
        given = {"username": admin.username, "password": "correct horse battery", "next": "/admin/"}

        client.post("/admin/login/", given)

        assert "_auth_user_id" not in client.session

    def test_a_login_does_not_lead_to_another_site(self, client, admin):
        client.force_login(admin)

        answer = client.get("/admin/login/?next=https://example.com/", follow=True)

        assert all("example.com" not in url.partition("?")[0] for url, _ in answer.redirect_chain)


class TestReading:
    @pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
    def test_every_list_and_row_can_be_read(self, client, admin, rows, model):
        client.force_login(admin)
        readable = admin.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")

        assert client.get(address(model, "changelist")).status_code == (200 if readable else 403)
        for row in model.objects.all()[:1]:
            answer = client.get(address(model, "change", row.pk))
            assert answer.status_code == (200 if readable else 403)

    @pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
    def test_a_list_takes_as_many_queries_with_ten_rows_as_with_one(
        self, client, admin, model, django_assert_max_num_queries
    ):
        client.force_login(admin)
        FlagFactory.create_batch(10)

        with django_assert_max_num_queries(20):
            client.get(address(model, "changelist"))


class TestNothingIsEditedAroundTheFunctions:
    """Not even by a superuser."""

    @pytest.fixture
    def client(self, client):
        client.force_login(UserFactory(is_superuser=True, is_staff=True))
        return client

    def test_what_is_not_edited_by_hand_is_read_only(self):
        registry = django_admin.site._registry
        editable = {
            model._meta.model_name for model in OURS if not isinstance(registry[model], ReadOnly)
        }

        assert editable == EDITED_BY_HAND | {"apitoken"}

    @pytest.mark.parametrize(
        "model",
        [m for m in OURS if m._meta.model_name not in EDITED_BY_HAND],
        ids=lambda m: m.__name__,
    )
    def test_rows_are_neither_added_nor_changed(self, client, rows, model):
        before = list(model.objects.order_by("pk").values())

        assert client.post(address(model, "add"), {"title": "x"}).status_code == 403
        for row in model.objects.all():
            assert client.post(address(model, "change", row.pk), {"title": "x"}).status_code == 403

        assert list(model.objects.order_by("pk").values()) == before

    @pytest.mark.parametrize(
        "model", [m for m in OURS if m._meta.model_name not in {"apitoken", "mergegrant"}],
        ids=lambda m: m.__name__,
    )  # fmt: skip
    def test_rows_are_not_deleted(self, client, rows, model):
        before = list(model.objects.order_by("pk").values_list("pk", flat=True))
        chosen = {"action": "delete_selected", "_selected_action": before, "post": "yes"}

        client.post(address(model, "changelist"), chosen)
        for pk in before:
            assert client.post(address(model, "delete", pk), {"post": "yes"}).status_code == 403

        assert list(model.objects.order_by("pk").values_list("pk", flat=True)) == before


class TestPeople:
    def change(self, client, person, **given):
        """What the form sends when somebody presses Save."""
        page = client.get(address(User, "change", person.pk))
        if page.status_code != 200 or "adminform" not in page.context:
            return client.post(address(User, "change", person.pk), given)
        fields = page.context["adminform"].form
        sent = {name: fields[name].value() for name in fields.fields}
        sent = {name: "" if value is None else value for name, value in sent.items()}
        sent = {name: value for name, value in sent.items() if value is not False}
        return client.post(address(User, "change", person.pk), sent | given)

    def test_an_admin_gives_a_role_and_it_is_written_down(self, client, admin, customer):
        client.force_login(admin)
        agents = Group.objects.get(name=permissions.AGENT)

        assert self.change(client, customer, groups=[agents.pk]).status_code == 302

        assert list(customer.groups.all()) == [agents]
        entry = AuditEntry.objects.get(action="person_changed")
        assert (entry.by, entry.details) == (admin, {"person": customer.pk})

    def test_an_admin_makes_nobody_more_than_an_admin(self, client, admin):
        client.force_login(admin)

        answer = self.change(
            client, admin, is_superuser="on", is_staff="on",
            user_permissions=[1], display_name="Still me",
        )  # fmt: skip

        admin.refresh_from_db()
        assert answer.status_code == 302
        assert admin.display_name == "Still me"
        assert not admin.is_superuser
        assert not admin.is_staff
        assert not admin.user_permissions.exists()

    def test_an_admin_takes_over_no_superuser(self, client, admin):
        superuser = UserFactory(is_superuser=True, is_staff=True)
        client.force_login(admin)
        given = {
            "password1": "taken over 1",
            "password2": "taken over 1",
            "usable_password": "true",
        }

        assert self.change(client, superuser, username="mine").status_code == 403
        answer = client.post(f"/admin/support/user/{superuser.pk}/password/", given)

        assert answer.status_code == 403
        superuser.refresh_from_db()
        assert superuser.check_password("correct horse battery")

    def test_a_superuser_may_give_what_goes_beyond_the_roles(self, client, customer):
        client.force_login(UserFactory(is_superuser=True, is_staff=True))

        self.change(
            client, customer, is_superuser="on",
            date_joined_0="2026-01-01", date_joined_1="00:00",
        )  # fmt: skip

        customer.refresh_from_db()
        assert customer.is_superuser
        assert "is_superuser" in BEYOND_ROLES


class TestActions:
    def test_questions_in_quarantine_are_checked_again(self, client, admin, bells):
        client.force_login(admin)
        entry = OutboxEntry.objects.create(question=QuestionFactory(), attempts=3)
        OutboxEntry.objects.update(quarantined_at=entry.put_at)

        client.post(
            address(OutboxEntry, "changelist"),
            {"action": "check_again", "_selected_action": [entry.pk]},
        )

        assert OutboxEntry.objects.waiting().get().question == entry.question
        assert outbox.has_waiting(entry.put_at)

    def test_a_product_is_added(self, client, admin):
        client.force_login(admin)

        client.post(address(Product, "add"), {"name": "Desk", "slug": "desk"})

        assert Product.objects.get().slug == "desk"

    def test_a_product_with_questions_is_not_deleted(self, client, admin):
        client.force_login(admin)
        product = ProductFactory()

        assert client.post(address(Product, "delete", product.pk)).status_code == 403

    def test_a_token_is_taken_away_and_its_secret_never_shown(self, client, admin, agent):
        client.force_login(admin)
        token, secret = ApiToken.objects.issue(user=agent, name="script")

        page = client.get(address(ApiToken, "change", token.pk)).content.decode()
        client.post(address(ApiToken, "delete", token.pk), {"post": "yes"})

        assert secret not in page
        assert token.digest not in page
        assert not ApiToken.objects.exists()

    def test_questions_are_found_by_their_title(self, client, admin):
        QuestionFactory(title="How do I dim it?")
        QuestionFactory(title="Where is my parcel?")
        client.force_login(admin)

        page = client.get(address(Question, "changelist"), {"q": "parcel"}).content.decode()

        assert "Where is my parcel?" in page
        assert "How do I dim it?" not in page
