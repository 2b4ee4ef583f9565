from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class SupportConfig(AppConfig):
    name = "support"
    verbose_name = _("Portal")
    default = True

    def ready(self) -> None:
        from support.permissions import create_roles  # noqa: PLC0415 - its models need ready apps

        post_migrate.connect(create_roles, dispatch_uid="create_roles")


class PortalAdminConfig(AdminConfig):
    default_site = "support.admin_site.PortalAdminSite"
