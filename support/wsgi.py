import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "support.settings")

application = get_wsgi_application()

from support.http import Request  # noqa: E402  # its models have to be loaded first

application.request_class = Request
