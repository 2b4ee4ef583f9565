"""Who may do what: three roles, each a Django group with permissions."""

from typing import Any

CUSTOMER, AGENT, ADMIN = "customer", "agent", "admin"

# dedup.apps adds the permissions of its own rows.
ROLES: dict[str, set[str]] = {
    CUSTOMER: set(),
    AGENT: {"support.view_private_question", "support.view_question", "support.view_merge"},
    ADMIN: {
        "support.view_private_question",
        "support.merge_question",
        "support.view_question",
        "support.view_answer",
        "support.view_merge",
        "support.view_auditentry",
        "support.view_outboxentry",
        "support.view_notification",
        "support.view_inboundmail",
        "support.view_user",
        "support.change_user",
        "support.add_product",
        "support.change_product",
        "support.view_product",
        "support.add_mergegrant",
        "support.change_mergegrant",
        "support.delete_mergegrant",
        "support.view_mergegrant",
        "support.view_apitoken",
        "support.delete_apitoken",
    },
}


def may_administer(user: Any) -> bool:
    """Whether this person may enter Django's admin: by the role, or as a superuser."""
    if not user.is_active or not user.is_authenticated:
        return False
    return user.is_superuser or user.groups.filter(name=ADMIN).exists()


def create_roles(**_: Any) -> None:
    """Create the groups, and give each what it lacks. Nothing that an admin added is taken away."""
    from django.contrib.auth.models import Group, Permission  # noqa: PLC0415 - before apps are ready

    known = {
        f"{app}.{codename}": pk
        for pk, app, codename in Permission.objects.values_list(
            "pk", "content_type__app_label", "codename"
        )
    }
    for role, permissions in ROLES.items():
        group, _created = Group.objects.get_or_create(name=role)
        group.permissions.add(*(known[name] for name in permissions if name in known))
