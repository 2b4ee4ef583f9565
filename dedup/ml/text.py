"""Question fields -> model input. One function for training and serving alike."""

import hashlib
import html
import re
import unicodedata

LIMIT = 4_000  # characters kept; cutting comes before tokenising, which is slow on long text
_TAG = re.compile(r"<(?:/?[a-zA-Z][^<>]{0,500}|!--.{0,500}?--)>", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]\[]{0,300})\]\([^()\s]{0,500}\)")
_MARK = re.compile(r"(?m)^\s{0,3}(?:#{1,6}\s+|>+\s?|```\w*\s*$)|[*_`~]{2,}|`")
_SPACE = re.compile(r"\s+")


def model_input(title: str, body: str = "", product: str = "") -> str:
    """The text that both networks read: title, then body, at most 4,000 characters.

    The product stays out: it is a filter, and the same question in two products is still one.
    """
    del product
    cleaned = [clean(part) for part in (title, body)]
    return " ".join(part for part in cleaned if part)[:LIMIT].rstrip()


def clean(text: str) -> str:
    """Plain text on one line: NFC, without markup, control and zero-width characters."""
    text = unicodedata.normalize("NFC", text[: 4 * LIMIT])
    text = html.unescape(_TAG.sub(" ", text))
    text = _LINK.sub(r"\1", text)
    text = _MARK.sub(" ", text)
    text = _SPACE.sub(" ", text)
    kept = "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})
    return unicodedata.normalize("NFC", kept)[:LIMIT].strip()


def text_hash(text: str) -> str:
    """Hex sha256 of a model input."""
    return hashlib.sha256(text.encode()).hexdigest()
