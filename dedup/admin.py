"""The review queue in Django's admin, on the functions that the pages use."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from dedup import desk, models, promoting, review
from dedup.ml.artifact import ArtifactRefused
from support import merging
from support.admin import MergeAdmin, ReadOnly
from support.models import Merge, User
from support.templatetags.texts import in_percent, percent


@admin.register(models.Flag)
class FlagAdmin(ReadOnly):
    list_display = ["pair", "share", "status", "flagged_at", "release", "open_in_review"]
    list_filter = ["status", "older__product", "release"]
    list_select_related = ["older", "newer", "release"]
    actions = ["confirm", "dismiss", "relate", "skip", "merge"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return models.Flag.objects.unhidden()

    @admin.display(description=_("Questions"))
    def pair(self, flag: models.Flag) -> str:
        return f"{flag.older} | {flag.newer}"

    @admin.display(description=_("Probability"), ordering="probability")
    def share(self, flag: models.Flag) -> str:
        return percent(flag.probability)

    @admin.display(description="")
    def open_in_review(self, flag: models.Flag) -> str:
        address, name = reverse("review_card", args=[flag.pk]), gettext("open in review")
        return format_html('<a href="{}">{}</a>', address, name)

    def has_review_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dedup.review_flag")

    @admin.action(description=_("Duplicate: confirm"), permissions=["review"])
    def confirm(self, request: HttpRequest, chosen: Any) -> None:
        """Confirm each, in the direction that its card proposes; merged where one may merge."""

        def decide(flag: models.Flag, by: User) -> None:
            review.confirm(flag=flag, canonical=review.proposed(flag), by=by)

        self._each(request, chosen.select_related("older__canonical", "newer__canonical"), decide)

    @admin.action(description=_("Not a duplicate: dismiss"), permissions=["review"])
    def dismiss(self, request: HttpRequest, chosen: Any) -> None:
        self._each(request, chosen, lambda flag, by: review.dismiss(flag=flag, by=by))

    @admin.action(description=_("Related, not the same"), permissions=["review"])
    def relate(self, request: HttpRequest, chosen: Any) -> None:
        self._each(
            request, chosen, lambda flag, by: review.dismiss(flag=flag, by=by, is_related=True)
        )

    @admin.action(description=_("Skip"), permissions=["review"])
    def skip(self, request: HttpRequest, chosen: Any) -> None:
        self._each(request, chosen, lambda flag, by: review.skip(flag=flag, by=by))

    def has_merge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("support.merge_question")

    @admin.action(description=_("Merge what was confirmed"), permissions=["merge"])
    def merge(self, request: HttpRequest, chosen: Any) -> None:
        """All or none, in the direction that the merge desk proposes."""
        assert isinstance(request.user, User)
        ids = list(chosen.values_list("pk", flat=True))
        try:
            edges = desk.merge_many(flag_ids=ids, by=request.user)
        except (review.ReviewRefused, merging.MergeRefused) as error:
            messages.error(request, str(error))
            return
        said = ngettext("%(count)s merged.", "%(count)s merged.", len(edges))
        messages.success(request, said % {"count": len(edges)})

    def _each(
        self, request: HttpRequest, chosen: Any, decide: Callable[[models.Flag, User], object]
    ) -> None:
        assert isinstance(request.user, User)
        done = 0
        for flag in chosen.order_by("pk"):
            try:
                decide(flag, request.user)
                done += 1
            except (review.ReviewRefused, merging.MergeRefused) as error:
                messages.error(request, f"{flag}: {error}")
        said = ngettext("%(count)s decided.", "%(count)s decided.", done)
        messages.success(request, said % {"count": done})


@admin.register(models.Review)
class ReviewAdmin(ReadOnly):
    list_display = ["flag", "verdict", "by", "reviewed_at", "undone_at"]
    list_filter = ["verdict", ("by", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["flag", "by"]

    def get_queryset(self, request: HttpRequest) -> Any:
        """Without those of pairs whose score nobody is to see before they are decided."""
        hidden = {"flag__status": models.Flag.Status.OPEN, "flag__lane__in": models.Flag.BLIND}
        return super().get_queryset(request).exclude(**hidden)


class MergeDeskAdmin(MergeAdmin):
    """Merges, which the desk takes back: so that the pair is marked and its flags are closed."""

    actions = ["take_back"]

    def has_merge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("support.merge_question")

    @admin.action(description=_("Take back"), permissions=["merge"])
    def take_back(self, request: HttpRequest, chosen: Any) -> None:
        """All or none."""
        assert isinstance(request.user, User)
        try:
            undone = desk.unmerge_many(merges=list(chosen.in_force()), by=request.user)
        except merging.MergeRefused as error:
            messages.error(request, str(error))
            return
        said = ngettext("%(count)s taken back.", "%(count)s taken back.", len(undone))
        messages.success(request, said % {"count": len(undone)})


admin.site.unregister(Merge)
admin.site.register(Merge, MergeDeskAdmin)


@admin.register(models.Release)
class ReleaseAdmin(ReadOnly):
    list_display = ["name", "is_active", "flags_from", "activated_at", "activated_by"]
    fields = ["name", "fingerprint", "flags_from", "is_active", "activated_at", "previous"]
    actions = ["activate"]

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dedup.activate_release")

    @admin.display(description=_("Flags from"), ordering="threshold")
    def flags_from(self, release: models.Release) -> str:
        return in_percent(release.threshold)

    @admin.action(description=_("Put into service"), permissions=["activate"])
    def activate(self, request: HttpRequest, chosen: Any) -> None:
        if chosen.count() != 1:
            messages.error(request, gettext("Choose one release."))
            return
        try:
            release = promoting.promote(release=chosen.get(), by=request.user)  # type: ignore[arg-type]
        except (ArtifactRefused, promoting.GatesShut) as error:
            messages.error(request, gettext("Refused: %(reason)s") % {"reason": error})
            return
        said = gettext("%(release)s is in service.")
        messages.success(request, said % {"release": release})
