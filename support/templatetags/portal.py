"""What every page may want to know, and what is asked for only where it is shown."""

from django import template
from django.utils import timezone

from support import outbox

register = template.Library()


@register.simple_tag
def check_is_late() -> bool:
    """Whether a question has waited for its check for longer than it should."""
    return outbox.is_late(timezone.now())
