"""A mail's text -> what its writer wrote: without quotes and their introductions, signatures.

Read line by line in one pass, and nothing of what stays is changed: indented code stays code. The
libraries for this were tried: they take the indents away, lose lists, leave what a reply below its
quote quotes, or take minutes over a line made to hurt.
"""

import re
from collections.abc import Sequence

LONGEST_INTRODUCTION = 4  # lines over which programs spread "On … wrote:"
LONGEST_LINE = 500  # characters that are looked at: what introduces a quote is shorter

_WROTE = (
    r"wrote|writes|schrieb|a écrit|escribió|escreveu|ha scritto|schreef|skrev|napisał|napsal|"
    r"írta|написал|пише|كتب|yazdı|kirjoitti"
)
_INTRODUCES = re.compile(rf"(?:^|[\s>,]) *(?:{_WROTE})\b[^\n]{{0,200}}:$|^(?:{_WROTE}):$", re.I)
_OLD_MESSAGE = re.compile(
    r"[-_*> ]{3,}\s*(?:original message|ursprüngliche nachricht|originalnachricht|"
    r"forwarded message|weitergeleitete nachricht|urspr\. nachricht|message d'origine|"
    r"mensaje original|messaggio originale|oorspronkelijk bericht|"
    r"reply message|begin forwarded message)"
    r"\s*[-_*]{2,}",
    re.I,
)
_FROM = re.compile(r"[*_ ]*(?:from|von|de|da|van|från|fra|od|от|من)[*_ ]*:", re.I)
_FIELD = re.compile(
    r"[*_ ]*(?:sent|gesendet|date|datum|envoyé|enviado|inviato|verzonden|to|an|à|para|aan|a|cc|"
    r"kopie|subject|betreff|objet|asunto|oggetto|onderwerp|reply-to|antwort an|التاريخ|إلى|الموضوع)"
    r"[*_ ]*:",
    re.I,
)
_DEVICE = re.compile(
    r"[*_\[ ]*(?:sent from (?:my|outlook|mail|yahoo|proton|samsung|gmail|a )|sent via |"
    r"get outlook for |sent with |von meinem .{1,60} gesendet|gesendet (?:von|mit|aus) |"
    r"diese nachricht wurde von .{1,60} gesendet|"
    r"(?:holen sie sich )?outlook für (?:ios|android|mac)|"
    r"outlook for (?:ios|android|mac)|envoyé (?:de|depuis) |télécharger outlook|"
    r"enviado (?:desde|do) |inviato da |verzonden (?:vanaf|met) |skickat från )",
    re.I,
)
_FENCE = re.compile(r" {0,3}```")
_RULE = re.compile(r"[-_=*\s]+")


def own_words(text: str) -> str:
    """Return what the writer of a mail added to what they answer; "" where that is nothing."""
    lines = [line.rstrip("\r") for line in text.replace("\r\n", "\n").split("\n")]
    kept: list[str] = []
    last_fence = max((n for n, line in enumerate(lines) if _FENCE.match(line)), default=-1)
    place, in_code = 0, False
    while place < len(lines):
        line = lines[place]
        if _FENCE.match(line):
            in_code = not in_code and place < last_fence  # one that never ends is none
        if not in_code:
            if _ends_the_mail(lines, place):
                break
            if count := _introduction(lines, place):
                place += count
                if not _is_quote_next(lines, place):
                    break  # the quote that follows has no marks: it goes on to the end
                continue
            if line.startswith(">"):
                place += 1
                continue
        kept.append(line)
        place += 1
    return _without_device(kept)


def _ends_the_mail(lines: Sequence[str], place: int) -> bool:
    """Whether a signature or an older message begins here, after which nothing is new."""
    line = lines[place][:LONGEST_LINE]
    if line.rstrip() == "--" or line.rstrip() == "\\--" or _OLD_MESSAGE.match(line):
        return True
    if not _FROM.match(line):
        return False
    following = [other[:LONGEST_LINE] for other in lines[place + 1 : place + 7]]
    return sum(bool(_FIELD.match(other)) for other in following) >= 2


def _introduction(lines: Sequence[str], place: int) -> int:
    """How many lines from here on say who wrote the quote that follows; 0 where none does."""
    if not lines[place].strip() or lines[place].startswith(">"):
        return 0
    said = ""
    for count in range(1, LONGEST_INTRODUCTION + 1):
        line = lines[place + count - 1].strip() if place + count <= len(lines) else ""
        if not line:
            return 0
        said = f"{said} {line}".strip()
        if len(said) > LONGEST_LINE:
            return 0
        if line.endswith(":") and _INTRODUCES.search(said):
            dated = any(character.isdigit() for character in said)
            certain = _is_quote_next(lines, place + count) or "@" in said
            return count if dated and certain else 0
    return 0


def _is_quote_next(lines: Sequence[str], place: int) -> bool:
    following = (line for line in lines[place : place + 4] if line.strip())
    return next(following, "").startswith(">")


def _without_device(lines: list[str]) -> str:
    """Without what a telephone writes below, and without rules and empty lines at the ends."""
    kept = list(lines)
    while kept and (_RULE.fullmatch(kept[-1] or " ") or _DEVICE.match(kept[-1])):
        kept.pop()
    while kept and not kept[0].strip():
        kept.pop(0)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in kept))
