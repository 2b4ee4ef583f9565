"""For pytest under mutmut, which runs it anew in a fork for each mutant: one database for all."""

import pytest

_is_made = False


def pytest_configure(config):
    config.pluginmanager.register(_OneDatabase())  # after pytest-django, to stand before it


class _OneDatabase:
    """Made in the first session; later ones only look whether a killed one left rows in it."""

    @pytest.fixture(scope="session")
    @classmethod
    def django_db_setup(cls, django_test_environment, django_db_blocker):
        global _is_made  # noqa: PLW0603 - outlives each session
        from django.core.management import call_command  # noqa: PLC0415
        from django.db import connections  # noqa: PLC0415
        from django.test.utils import setup_databases  # noqa: PLC0415

        from support.models import Product, User  # noqa: PLC0415

        with django_db_blocker.unblock():
            if not _is_made:
                setup_databases(verbosity=0, interactive=False, keepdb=True)
                _is_made = True
            if User.objects.exists() or Product.objects.exists():
                call_command("flush", interactive=False, verbosity=0)
            connections.close_all()
        yield
        with django_db_blocker.unblock():
            connections.close_all()
