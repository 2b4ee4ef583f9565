from django.apps import AppConfig
from django.db.models.signals import post_migrate


class SupportConfig(AppConfig):
    name = "support"

    def ready(self) -> None:
        from support.permissions import create_roles

        post_migrate.connect(create_roles, dispatch_uid="create_roles")
