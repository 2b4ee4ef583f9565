"""Guides for users: Markdown in `templates/docs/`, by language and audience, made into pages.

A page is `en/AUDIENCE/NN-SLUG.md`; the number orders it. A translation has the same name in the
folder of its language, and the same headings in the same order: they have the English anchors, so
that a link leads to the same place in every language.
"""

import itertools
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nh3
from django.conf import settings
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import slugify
from markdown_it import MarkdownIt
from markdown_it.token import Token

FOLDER = settings.BASE_DIR / "templates" / "docs"
SOURCE = "en"  # the language that every guide is written in first
AUDIENCES = ("customers", "agents", "admins", "operators")
TAGS = {
    "a", "blockquote", "code", "div", "em", "h1", "h2", "h3", "li", "ol", "p", "pre", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href"},
    "div": {"aria-label", "class", "role", "tabindex"},
    "pre": {"tabindex"},
    **{heading: {"id"} for heading in ("h1", "h2", "h3")},
}
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_LINK = re.compile(r"(?P<path>[^#]*\.md)?(?:#(?P<anchor>.*))?")


@dataclass(frozen=True)
class Section:
    """A heading, and what is said between it and the next one."""

    level: int
    title: str
    anchor: str
    text: str


@dataclass(frozen=True)
class Guide:
    """One page. `language` is what it is written in, which may not be what was asked for."""

    audience: str
    slug: str
    language: str
    html: SafeString
    sections: tuple[Section, ...]

    @property
    def title(self) -> str:
        return self.sections[0].title

    @property
    def summary(self) -> str:
        """What stands below the title, before the first heading."""
        return self.sections[0].text

    @property
    def contents(self) -> list[Section]:
        """The headings that a reader may want to jump to."""
        return [section for section in self.sections if section.level == 2]

    def get_absolute_url(self) -> str:
        return reverse("guide", args=[self.audience, self.slug])


@cache
def library(language: str) -> dict[tuple[str, str], Guide]:
    """Every guide by audience and slug, in this language where it is there, in order."""
    return {
        (audience, slug_of(file.name)): _read(audience, file.name, language)
        for audience in AUDIENCES
        for file in sorted((FOLDER / SOURCE / audience).glob("*.md"))
    }


def of_audience(audience: str, language: str) -> list[Guide]:
    """The guides of one audience, in order."""
    return [guide for guide in library(language).values() if guide.audience == audience]


def slug_of(name: str) -> str:
    """`03-searching.md` as it stands in an address: `searching`."""
    return name.removesuffix(".md").partition("-")[2]


def _read(audience: str, name: str, language: str) -> Guide:
    source = FOLDER / SOURCE / audience / name
    translated = FOLDER / language / audience / name
    is_there = translated.exists()
    tokens = _tokens(translated if is_there else source)
    headings = _titles(_tokens(source))
    anchors = [slugify(title) for title in headings]
    if len(_titles(tokens)) != len(anchors):  # a translation that is behind has its own
        anchors = [slugify(title, allow_unicode=True) for title in _titles(tokens)]
    return Guide(
        audience=audience,
        slug=slug_of(name),
        language=language if is_there else SOURCE,
        html=_rendered(tokens, anchors, audience),
        sections=tuple(_sections(tokens, anchors)),
    )


def _tokens(file: Path) -> list[Token]:
    return _markdown.parse(file.read_text(encoding="utf-8"))


def _titles(tokens: Sequence[Token]) -> list[str]:
    after_headings = itertools.pairwise(tokens)
    return [_plain(inline) for token, inline in after_headings if token.type == "heading_open"]


def _plain(inline: Token) -> str:
    """The words of a line of Markdown, without its marks."""
    return "".join(
        child.content or " " * ("break" in child.type) for child in inline.children or []
    )


def _sections(tokens: Sequence[Token], anchors: Sequence[str]) -> Iterator[Section]:
    starts = [place for place, token in enumerate(tokens) if token.type == "heading_open"]
    for anchor, start, end in zip(anchors, starts, [*starts[1:], len(tokens)], strict=True):
        said = (
            _plain(token) if token.type == "inline" else token.content.strip()
            for token in tokens[start + 2 : end]
        )
        text = " ".join(piece for piece in said if piece)
        yield Section(int(tokens[start].tag[1]), _plain(tokens[start + 1]), anchor, text)


def _rendered(tokens: list[Token], anchors: Sequence[str], audience: str) -> SafeString:
    """HTML with an anchor at each heading; what is wide scrolls by itself, also by keys."""
    left, heading = iter(anchors), ""
    pieces: list[Token] = []
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type == "heading_open":
            token.attrSet("id", next(left))
            heading = _plain(following)
        for child in token.children or []:
            if child.type == "link_open":
                child.attrSet("href", _address(str(child.attrGet("href")), audience))
        around = [token]
        if token.type == "table_open":
            around.insert(0, _html(_table_start(heading)))
        elif token.type == "table_close":
            around.append(_html("</div>"))
        pieces += around
    html = _markdown.renderer.render(pieces, _markdown.options, {})
    html = html.replace("<pre>", '<pre tabindex="0">')
    return SafeString(nh3.clean(html, tags=TAGS, attributes=ATTRIBUTES, link_rel=None))


def _table_start(heading: str) -> str:
    """A group, no region: a page with many tables is no page with many landmarks."""
    return format_html('<div class="table" role="group" tabindex="0" aria-label="{}">', heading)


def _html(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _address(target: str, audience: str) -> str:
    """Where a link leads: `../admins/01-merging.md#what-moves` names a page as a file does."""
    found = _LINK.fullmatch(target)
    if not found or not found["path"]:
        return target
    folder, _, name = posixpath.normpath(posixpath.join(audience, found["path"])).rpartition("/")
    address = reverse("guide", args=[folder, slug_of(name)])
    return f"{address}#{found['anchor']}" if found["anchor"] else address
