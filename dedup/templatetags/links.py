"""What detection adds to the portal's pages, which know nothing of it."""

from django import template

from dedup import desk
from support.models import Question

register = template.Library()


@register.simple_tag
def linked_with(question: Question) -> list[Question]:
    """Live questions found to be the same, but with other readers: for agents' eyes only."""
    return desk.linked(question)
