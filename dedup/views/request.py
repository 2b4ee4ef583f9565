"""What pages of the desk read out of a request."""

from django.contrib.auth.decorators import permission_required

from support.http import HtmxRequest

reviewers_only = permission_required("dedup.review_flag", raise_exception=True)


def whole_number(text: str | None) -> int:
    """The number that a text is, or 0."""
    return int(text) if text and text.isdecimal() and len(text) < 18 else 0


def seen_versions(request: HtmxRequest, *question_ids: int) -> dict[int, int]:
    """The versions of the questions that stood on the page from which somebody decides."""
    names = {pk: f"version-{pk}" for pk in question_ids}
    return {
        pk: whole_number(request.POST[name]) for pk, name in names.items() if name in request.POST
    }
