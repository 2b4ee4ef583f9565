"""Django's admin for those with the role, entered through the site's own login."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from support import permissions


class PortalAdminSite(admin.AdminSite):
    """The role opens it; each list in it still asks for its own permission."""

    site_header = site_title = "AskOnce"

    def has_permission(self, request: HttpRequest) -> bool:
        return permissions.may_administer(request.user)

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """No login of its own: it would ask for no second factor."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied
        wanted = request.GET.get("next") or reverse("admin:index")
        return redirect_to_login(wanted)
