import pytest

from support.markup import to_markdown


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("plain text\n\nwith 2 < 3 && 4 > 1", "plain text\n\nwith 2 < 3 && 4 > 1"),
        ("<p>One</p>\n<p>Two &amp; three</p>", "One\n\nTwo & three"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<p>a <b>b</b> <em>c</em> <code>d_e</code></p>", "a **b** *c* `d_e`"),
        ("<pre><code>if a &lt; b:\n    c()\n</code></pre>", "```\nif a < b:\n    c()\n\n```"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
        ("<ul><li>a<ul><li>b</li></ul></li></ul>", "- a\n\n  - b"),
        ("<blockquote><p>said</p><p>more</p></blockquote><p>I</p>", "> said\n>\n> more\n\nI"),
        ("<h2>Big</h2><p>small</p>", "## Big\n\nsmall"),
        ('<p><a href="https://example.com/a?b=1">here</a></p>', "[here](https://example.com/a?b=1)"),
        ("<p><a href=\"javascript:alert(1)\">here</a></p>", "here"),
        ('<p><a href="https://example.com/a b)">here</a></p>', "here"),
        ('<p><img src="https://example.com/x.png" alt="a chart"></p>', "a chart"),
        ("<p>Use <dep><id>x</id></dep></p>", "Use <dep><id>x</id></dep>"),
        ("<p>never closed <b>bold", "never closed **bold"),
        ("</p></ul></blockquote></pre></a>", ""),
        ("<blockquote><p>never closed", "> never closed"),
        ("<p>a<!-- secret --></p>", "a"),
    ],
)  # fmt: skip
def test_html_becomes_markdown_and_all_else_stays(html, markdown):
    assert to_markdown(html) == markdown


@pytest.mark.parametrize("text", ["<p>if (a <![0]) b</p>", "<p>x <![foo[ y ]]></p>"])
def test_what_no_reader_can_read_stays_as_it_is(text):
    assert to_markdown(text) == text


def test_quotes_without_end_cost_no_more_than_their_length():
    found = to_markdown("<blockquote>" * 20_000 + "deep")

    assert found == "> > > > deep"
