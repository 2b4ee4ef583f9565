"""What a text must be before it is stored; forms and API share these."""

import unicodedata

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

LARGEST_TITLE = 200
LARGEST_BODY = 20_000
INVISIBLE = {"C", "M", "Z"}  # Unicode's classes: controls and formats, marks, separators


def validate_characters(text: str) -> None:
    """Raise `invalid_character` for what Postgres or a browser cannot carry."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError(
            _("This contains a character that cannot be stored."), "invalid_character"
        )


def validate_visible(text: str) -> None:
    """Raise `blank` where nothing would be seen: spaces, zero-width or combining marks only."""
    if all(unicodedata.category(character)[0] in INVISIBLE for character in text):
        raise ValidationError(_("Please write something."), "blank")
