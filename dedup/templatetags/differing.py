"""A text with the words marked that the text beside it does not have."""

import re
from html import unescape

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from dedup import differences
from support.templatetags.texts import markdown

register = template.Library()

TAG = re.compile(r"(<[^>]*>)")


@register.filter
def differing(text: str, opposite: str) -> SafeString:
    """Plain text, its own words marked."""
    return mark_safe("".join(_shown(piece) for piece in differences.pieces(text, opposite)))  # noqa: S308 - each is escaped


@register.filter
def differing_markdown(text: str, opposite: str) -> SafeString:
    """Markdown made safe, its own words marked; what stands in tags is left alone."""
    parts = TAG.split(markdown(text))
    return mark_safe(  # noqa: S308 - tags are those of `markdown`, the rest is escaped
        "".join(
            part if part.startswith("<") else differing(unescape(part), opposite) for part in parts
        )
    )


def _shown(piece: differences.Piece) -> SafeString:
    if piece.is_other:
        return format_html('<mark class="own">{}</mark>', piece.text)
    return conditional_escape(piece.text)
