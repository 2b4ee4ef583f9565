"""Django's admin. What people wrote and what happened is read here, never changed."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from support import audit, erasing, merging, models, outbox

BEYOND_ROLES = ("is_superuser", "is_staff", "user_permissions", "last_login", "date_joined")


class ReadOnly(admin.ModelAdmin):
    """Rows that only the functions of the house may write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(models.User)
class PersonAdmin(UserAdmin):
    list_display = ["username", "display_name", "email", "is_active"]
    list_filter = ["groups", "is_active", "is_guest"]
    actions = ["erase"]
    fieldsets = [
        *(UserAdmin.fieldsets or []),
        (
            _("Portal"),
            {
                "fields": [
                    "display_name",
                    "mail_pace",
                    "language",
                    "time_zone",
                    "theme",
                    "uses_keys",
                ]
            },
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """What goes beyond the roles is for superusers to give."""
        beyond = () if request.user.is_superuser else BEYOND_ROLES
        return [*super().get_readonly_fields(request, obj), *beyond]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who left is not brought back; superusers are for superusers to change."""
        if obj is not None and obj.erased_at:
            return False
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description=_("Erase, with all that they wrote"), permissions=["change"])
    def erase(self, request: HttpRequest, chosen: Any) -> HttpResponse | None:
        """Erase each of them, once that was confirmed on a page of its own."""
        people = chosen.filter(erased_at__isnull=True).order_by("pk")
        if "confirmed" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "title": _("Erase people"),
                "people": people,
                "opts": self.model._meta,
                "media": self.media,
            }
            return render(request, "admin/support/user/erase.html", context)
        assert isinstance(request.user, models.User)
        done = 0
        for person in people:
            try:
                erasing.erase(person=person, by=request.user)
                done += 1
            except (erasing.NotAllowed, erasing.LastAdmin, merging.ThreadsMoved) as error:
                messages.error(request, f"{person}: {error}")
        if done:
            said = ngettext("%(count)d person was erased.", "%(count)d people were erased.", done)
            messages.success(request, said % {"count": done})
        return None

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        audit.record("person_changed", by=request.user, now=timezone.now(), person=obj.pk)  # type: ignore[arg-type]
        return super().log_change(request, obj, message)


@admin.register(models.Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(models.Question)
class QuestionAdmin(ReadOnly):
    list_display = ["title", "product", "asked_by", "asked_at", "audience", "canonical"]
    list_filter = ["product", "audience"]
    search_fields = ["title"]
    list_select_related = ["product", "asked_by", "canonical"]
    fields = [
        "product", "title", "body", "audience", "asked_by", "asked_at", "version", "canonical"
    ]  # fmt: skip


@admin.register(models.Answer)
class AnswerAdmin(ReadOnly):
    list_display = ["pk", "question", "written_by", "written_at"]
    list_select_related = ["question", "written_by"]


@admin.register(models.Merge)
class MergeAdmin(ReadOnly):
    list_display = ["duplicate", "canonical", "merged_by", "merged_at", "undone_by", "undone_at"]
    list_select_related = ["duplicate", "canonical", "merged_by", "undone_by"]
    list_filter = ["merged_at"]


@admin.register(models.AuditEntry)
class AuditAdmin(ReadOnly):
    list_display = ["at", "action", "by", "question"]
    list_filter = ["action"]
    list_select_related = ["by", "question"]


@admin.register(models.Notification)
class NotificationAdmin(ReadOnly):
    list_display = ["kind", "recipient", "status", "due_at", "sent_at", "attempts"]
    list_filter = ["status", "kind"]
    list_select_related = ["recipient"]


@admin.register(models.InboundMail)
class InboundMailAdmin(ReadOnly):
    list_display = ["received_at", "outcome", "answer"]
    list_filter = ["outcome"]
    list_select_related = ["answer"]


@admin.register(models.OutboxEntry)
class OutboxAdmin(ReadOnly):
    list_display = [
        "question", "put_at", "is_background", "settled_at", "attempts", "quarantined_at",
        "failure",
    ]  # fmt: skip
    list_filter = ["is_background", "quarantined_at"]
    list_select_related = ["question"]
    actions = ["check_again"]

    @admin.action(description=_("Check again"), permissions=["view"])
    def check_again(self, request: HttpRequest, chosen: Any) -> None:
        ids = list(chosen.values_list("question", flat=True))
        count = outbox.retry_quarantined(question_ids=ids)
        said = ngettext(
            "%(count)s question will be checked again.",
            "%(count)s questions will be checked again.",
            count,
        )
        messages.success(request, said % {"count": count})


@admin.register(models.MergeGrant)
class MergeGrantAdmin(admin.ModelAdmin):
    list_display = ["agent", "product"]


@admin.register(models.ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):
    list_display = ["name", "user", "scope", "created_at", "expires_at"]
    exclude = ["digest"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
