"""What detection adds to the portal's pages, which know nothing of it."""

from collections.abc import Sequence
from typing import Any

from django import template

from dedup import desk, related
from support.models import Question

register = template.Library()


@register.simple_tag
def linked_with(question: Question) -> list[Question]:
    """Live questions found to be the same, but with other readers: for agents' eyes only."""
    return desk.linked(question)


@register.simple_tag(takes_context=True)
def related_to(context: dict[str, Any], question: Question) -> Sequence[Question]:
    """Live questions near this one that the reader may see."""
    return related.related(question, context["user"])
