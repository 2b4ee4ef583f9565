"""HTML that other portals keep their questions in -> the Markdown that this one keeps."""

import re
from html.parser import HTMLParser

KNOWN = (
    "p|br|div|pre|code|a|ul|ol|li|blockquote|h[1-6]|em|i|strong|b|hr|img|span|sub|sup|kbd|s|del|"
    "table|thead|tbody|tr|th|td"
)
TAGS = {name for name in KNOWN.split("|") if name.isalpha()} | {f"h{n}" for n in range(1, 7)}
_LOOKS_LIKE_HTML = re.compile(rf"</?(?:{KNOWN})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_IS_KNOWN = re.compile(KNOWN)
_LINK = re.compile(r"(?:https?://|mailto:)[^\s()<>]+")
_SPACE = re.compile(r"\s+")
MARKS = {"em": "*", "i": "*", "strong": "**", "b": "**", "code": "`", "kbd": "`"}
BLOCKS = {"p", "div", "ul", "ol", "table", "pre", "hr"} | {f"h{n}" for n in range(1, 7)}
DEEPEST = 4  # quotes in quotes that are kept as such


def to_markdown(text: str) -> str:
    """Return `text` as Markdown where it is HTML, else as it is. Links lead to the web or to mail.

    What only looks like a tag, as `<dependency>` in a question about XML, stays what it was.
    """
    if not _LOOKS_LIKE_HTML.search(text):
        return text.strip()
    reader = _Reader()
    try:
        reader.feed(text)
        reader.close()
    except AssertionError:  # what the standard library's reader says of `<![` without its end
        return text.strip()
    return reader.result()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[list[str]] = [[]]  # the innermost quote's last
        self.links: list[str] = []
        self.lists: list[int | None] = []  # numbers of ordered lists, None for others
        self.in_pre = False

    def result(self) -> str:
        while len(self.pieces) > 1:
            self._end_quote()
        return _tidied(self.pieces[0])

    def handle_data(self, data: str) -> None:
        self._add(data if self.in_pre else _SPACE.sub(" ", data))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not _IS_KNOWN.fullmatch(tag):
            self._add(self.get_starttag_text() or "")
        elif tag in BLOCKS:
            self._start_block(tag)
        elif tag == "blockquote" and len(self.pieces) <= DEEPEST:
            self.pieces.append([])
        elif tag == "li":
            self._add(f"\n{'  ' * (len(self.lists) - 1)}{self._bullet()} ")
        elif tag in {"br", "tr"}:
            self._add("\n")
        elif tag in {"td", "th"}:
            self._add(" ")
        elif tag == "a":
            target = dict(attrs).get("href") or ""
            self.links.append(target if _LINK.fullmatch(target) else "")
            self._add("[" if self.links[-1] else "")
        elif tag == "img":
            self._add(_SPACE.sub(" ", dict(attrs).get("alt") or ""))
        elif not self.in_pre:
            self._add(MARKS.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if not _IS_KNOWN.fullmatch(tag):
            self._add(f"</{tag}>")
        elif tag in BLOCKS:
            self._end_block(tag)
        elif tag == "blockquote" and len(self.pieces) > 1:
            self._end_quote()
        elif tag == "a" and self.links:
            target = self.links.pop()
            self._add(f"]({target})" if target else "")
        elif not self.in_pre:
            self._add(MARKS.get(tag, ""))

    def _add(self, piece: str) -> None:
        self.pieces[-1].append(piece)

    def _start_block(self, tag: str) -> None:
        self._add("\n\n")
        if tag == "pre":
            self.in_pre = True
            self._add("```\n")
        elif tag in {"ul", "ol"}:
            self.lists.append(0 if tag == "ol" else None)
        elif tag == "hr":
            self._add("---\n\n")
        elif tag[0] == "h":
            self._add("#" * int(tag[1]) + " ")

    def _end_block(self, tag: str) -> None:
        if tag == "pre" and self.in_pre:
            self.in_pre = False
            self._add("\n```")
        elif tag in {"ul", "ol"} and self.lists:
            self.lists.pop()
        self._add("\n\n")

    def _bullet(self) -> str:
        if not self.lists or self.lists[-1] is None:
            return "-"
        self.lists[-1] += 1
        return f"{self.lists[-1]}."

    def _end_quote(self) -> None:
        lines = _tidied(self.pieces.pop()).splitlines()
        self._add("\n\n" + "\n".join(f"> {line}".rstrip() for line in lines) + "\n\n")


def _tidied(pieces: list[str]) -> str:
    """One empty line between blocks, no space at the end of any."""
    text = re.sub(r"[ \t]+\n", "\n", "".join(pieces))
    return re.sub(r"\n{3,}", "\n\n", text).strip()
