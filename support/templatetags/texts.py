"""What a template cannot say: Markdown made safe."""

import nh3
from django import template
from django.utils.safestring import SafeString
from markdown_it import MarkdownIt

register = template.Library()

TAGS = {
    "a", "blockquote", "br", "code", "em", "h3", "h4", "hr", "li", "ol", "p", "pre", "s", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_markdown = MarkdownIt("js-default", {"html": False, "linkify": False}).disable("image")


@register.filter
def markdown(text: str) -> SafeString:
    """Render Markdown; whatever it says, only harmless tags and web links come out."""
    rendered = nh3.clean(
        _markdown.render(text),
        tags=TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener ugc",
    )
    return SafeString(rendered)


@register.filter
def percent(share: float) -> str:
    """0.934 as 93 %, never rounded up to certainty."""
    return f"{min(99, max(1, int(share * 100)))} %"
