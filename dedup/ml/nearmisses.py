"""Near misses by rule: texts that look alike and are not the same question."""

import random
import re
from collections.abc import Callable

OPPOSITES = [
    ("enable", "disable"), ("add", "remove"), ("import", "export"), ("before", "after"),
    ("upload", "download"), ("increase", "decrease"), ("buy", "sell"), ("start", "stop"),
    ("open", "close"), ("lock", "unlock"), ("install", "uninstall"), ("create", "delete"),
    ("send", "receive"), ("gain", "lose"), ("more", "less"), ("best", "worst"),
    ("first", "last"), ("show", "hide"), ("connect", "disconnect"), ("with", "without"),
    ("subscribe", "unsubscribe"), ("old", "new"), ("can", "can't"), ("does", "doesn't"),
    ("is", "isn't"), ("should", "shouldn't"), ("accept", "reject"), ("learn", "teach"),
]  # fmt: skip
NAMES = [
    "Google", "Facebook", "Instagram", "WhatsApp", "Gmail", "Android", "iPhone", "Windows",
    "Linux", "Java", "Python", "Amazon", "Uber", "India", "China", "Canada", "Germany",
    "Twitter", "YouTube", "Quora", "Microsoft", "Apple", "Samsung", "Chrome", "Firefox",
    "Slack", "Outlook", "Dropbox", "PayPal", "Excel", "email", "phone", "laptop",
]  # fmt: skip
_SWAP = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}
_NAME = {name.lower(): name for name in NAMES}
_NUMBER = re.compile(r"\d+")
_FROM_TO = re.compile(r"\bfrom ([\w ]{2,25}?) to (\w{2,25})\b")
_ASKS = re.compile(r"\b((?:do|can|should|could|would) (?:i|we|you|one))\b", re.IGNORECASE)


def change_number(text: str, rng: random.Random) -> str | None:
    """Another number or version, or None where there is none."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    at = rng.choice(found)
    value = int(at.group()[:9])
    other = value + rng.choice([1, 2, 3, 5, 10]) if value < 3000 else value + 10 * rng.randint(1, 9)
    return text[: at.start()] + str(other) + text[at.end() :]


def reverse_action(text: str, rng: random.Random) -> str | None:
    """The opposite action, time or polarity: enable/disable, before/after, can/can't."""
    return _replace_word(text, rng, lambda word: _SWAP.get(word.lower()))


def change_name(text: str, rng: random.Random) -> str | None:
    """Another product, service or place."""
    others = lambda word: [n for n in NAMES if n.lower() != word.lower()]  # noqa: E731
    return _replace_word(
        text, rng, lambda word: rng.choice(others(word)) if word.lower() in _NAME else None
    )


def swap_direction(text: str, rng: random.Random) -> str | None:
    """From X to Y -> from Y to X."""
    del rng
    changed = _FROM_TO.sub(r"from \2 to \1", text, count=1)
    return changed if changed != text else None


def negate(text: str, rng: random.Random) -> str | None:
    """How do I X -> how do I stop X, or how can I not X."""
    change = rng.choice([r"\1 stop", r"\1 not", r"\1 avoid having to"])
    changed = _ASKS.sub(change, text, count=1)
    return changed if changed != text else None


RULES: dict[str, Callable[[str, random.Random], str | None]] = {
    "number": change_number,
    "action": reverse_action,
    "name": change_name,
    "direction": swap_direction,
    "negation": negate,
}


def _replace_word(text: str, rng: random.Random, other: Callable[[str], str | None]) -> str | None:
    words = [m for m in re.finditer(r"[A-Za-z']+", text) if other(m.group())]
    if not words:
        return None
    at = rng.choice(words)
    return text[: at.start()] + str(other(at.group())) + text[at.end() :]


def make_near_miss(text: str, rng: random.Random) -> str | None:
    """The text changed by a rule drawn at random, or None where that rule changes nothing."""
    changed = RULES[rng.choice(list(RULES))](text, rng)
    return changed if changed != text else None


def make_positive(text: str, rng: random.Random) -> str:
    """An easy positive, so that a small change is not by itself a sign of a near miss."""
    choice = rng.randrange(4)
    if choice == 0:
        return text.lower()
    if choice == 1:
        return rng.choice(["Please help: ", "Question: ", "Hi, ", "Quick question: "]) + text
    if choice == 2:
        return text.rstrip("?. ") + rng.choice([", thanks", "? Thanks!", " please?", "??"])
    words = text.split()
    at = rng.randrange(max(1, len(words) - 1))
    if len(words) > at + 1 and len(words[at]) > 4:
        word = words[at]
        words[at] = word[:2] + word[3] + word[2] + word[4:]
    return " ".join(words)
