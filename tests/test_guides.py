"""What the guides say is what the code has; what they link to is there; what is asked is found."""

import argparse
import ast
import itertools
import posixpath
import re
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.urls import Resolver404, resolve
from django.utils import translation
from django.utils.translation import gettext

from support import guide_search, guides

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "templates" / "docs"
KEYS = (ROOT / "templates/dedup/keys.html").read_text(encoding="utf-8")
TRANSLATIONS = ("de", "ar")
FILES = sorted(DOCS.glob("*/*/*.md"))
ENGLISH = sorted((DOCS / "en").glob("*/*.md"))


def text_of(name):
    return (DOCS / "en" / name).read_text(encoding="utf-8")


def named(file):
    return str(file.relative_to(DOCS))


def rows(text):
    """The cells of each row of all tables in a Markdown text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {line for line, below in itertools.pairwise(lines) if is_rule(below)}
    kept = [line for line in lines if line not in heads and not is_rule(line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in kept]


def is_rule(line):
    return set(line) <= set("|- ")


def code(cell):
    """What stands as code in a cell; None where nothing does."""
    found = re.fullmatch(r"`([^`]*)`.*", cell)
    return found and found[1]


# --- Settings ---------------------------------------------------------------------------------


def variables():
    """Every variable of the environment that settings.py reads, with its default as an AST node."""
    found = {}
    tree = ast.parse((ROOT / "support/settings.py").read_text(encoding="utf-8"))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func)
        readers = {"_text", "_flag", "_number", "_list", "os.environ.get"}
        if function in readers and call.args and isinstance(call.args[0], ast.Constant):
            default = call.args[1:2] or [key.value for key in call.keywords if key.arg == "default"]
            found[call.args[0].value] = (function, default[0] if default else None)
    return found


def is_default(function, node, told):
    """Whether a cell of the table tells this default."""
    if node is None:
        return told == ("false" if function == "_flag" else "none")
    if not isinstance(node, ast.Constant):  # a folder: the code has the whole path
        folders = re.findall(r"'([\w.-]+)'", ast.unparse(node))
        return told == "/".join(folders)
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(told) == node.value
    return told.lower() == str(node.value).lower()


SETTINGS = {
    code(row[0]): (code(row[1]) or row[1]) for row in rows(text_of("operators/02-settings.md"))
}


def test_every_variable_of_the_environment_stands_in_the_guide_and_no_other():
    assert set(SETTINGS) == set(variables())
    assert len(SETTINGS) > 20


@pytest.mark.parametrize("name", sorted(variables()))
def test_the_guide_tells_the_true_default(name):
    function, node = variables()[name]

    assert is_default(function, node, SETTINGS[name]), (
        name,
        SETTINGS[name],
        node and ast.unparse(node),
    )


# --- Commands ---------------------------------------------------------------------------------

COMMANDS = {
    name: load_command_class(app, name)
    for name, app in get_commands().items()
    if app in {"support", "dedup"}
}
ALWAYS = {
    action.dest for action in BaseCommand().create_parser("manage.py", "x")._actions
}  # what Django gives to every command


def options(parser):
    """Options and arguments of a parser, and those of its parts; each by its longest name."""
    found = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.add(action.dest)
            found |= {name for part in action.choices.values() for name in options(part)}
        elif action.dest not in ALWAYS:
            found.add(max(action.option_strings, key=len, default=action.dest))
    return found


def sections(text):
    """The text below each heading of the second level whose title is one name in code."""
    pieces = re.split(r"(?m)^## `(\w+)`$", text)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


TOLD = sections(text_of("operators/03-commands.md"))


def test_every_command_stands_in_the_guide_and_no_other():
    assert set(TOLD) == set(COMMANDS)
    assert len(TOLD) > 10


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_stands_in_the_guide_and_no_other(name):
    told = {code(row[0]) for row in rows(TOLD[name])}

    assert told == options(COMMANDS[name].create_parser("manage.py", name))


# --- Keys -------------------------------------------------------------------------------------


def test_every_key_of_the_review_desk_stands_in_the_guide_and_no_other():
    changeable = set(re.findall(r'<input data-key-of="\w+" value="(.)"', KEYS))
    fixed = {
        "+".join(re.findall(r'<kbd>(?:{% trans ")?(\w+)', row))
        for row in re.findall(r"<dt>(.*?)</dt>", KEYS)
    } - {""}
    told = [row[0] for row in rows(text_of("agents/02-card.md"))]
    written = {"+".join(re.findall(r"`([^`]+)`", cell)) for cell in told}

    assert len(told) == len(written)
    assert written == {key.upper() for key in changeable} | fixed | {"Esc"}


def test_the_guide_tells_of_a_key_what_the_desk_does_with_it():
    actions = dict(re.findall(r'data-key-of="(\w+)" value="(.)"', KEYS))
    words = {
        "duplicate": "Duplicate", "different": "Not a duplicate", "related": "Related",
        "skip": "Skip", "snooze": "Later", "unsure": "second opinion", "swap": "Swap",
        "cluster": "all that seem to be the same", "claim": "over", "overrule": "otherwise",
        "guideline": "guideline", "undo": "Undo", "words": "words", "next": "Next",
        "previous": "Previous", "search": "Search", "keys": "keys",
    }  # fmt: skip
    told = {row[0].strip("`").lower(): row[1] for row in rows(text_of("agents/02-card.md"))}

    assert set(words) == set(actions)
    for action, word in words.items():
        assert word in told[actions[action]], (action, told[actions[action]])


# --- Pages ------------------------------------------------------------------------------------


def headings(file):
    """Level and title of each heading; lines within code are none."""
    text = re.sub(r"(?ms)^\s*```.*?^\s*```", "", file.read_text(encoding="utf-8"))
    return [(len(marks), title) for marks, title in re.findall(r"(?m)^(#+) (.+)$", text)]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_guide_has_one_title_and_skips_no_level(file):
    levels = [level for level, _ in headings(file)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(levels) <= 3
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


@pytest.mark.parametrize("file", ENGLISH, ids=named)
def test_a_guide_has_no_anchor_twice(file):
    found = guides.library("en")[file.parent.name, guides.slug_of(file.name)]
    anchors = [section.anchor for section in found.sections]

    assert len(anchors) == len(set(anchors))
    assert all(f'id="{anchor}"' in found.html for anchor in anchors)


def links(file):
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", file.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_link_leads_somewhere(file):
    for link in links(file):
        path, _, anchor = link.partition("#")
        if path.startswith("/"):
            resolve(path)
        elif not re.match(r"https?:", path):
            target = (ROOT / posixpath.normpath(file.parent / path)) if path else file
            assert (
                target.exists()
                or (DOCS / "en" / target.relative_to(DOCS / file.parts[-3])).exists()
            ), link
            page = guides.library("en")[target.parent.name, guides.slug_of(target.name)]
            assert not anchor or anchor in [s.anchor for s in page.sections], link


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_route_that_is_named_is_there(file):
    prefixes = {"/api/v1/": "/api/v1/questions/"}  # where programs begin; itself no page
    for path in re.findall(r"`(/[\w/.-]+)`", file.read_text(encoding="utf-8")):
        try:
            resolve(prefixes.get(path, path))
        except Resolver404:
            pytest.fail(path)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_the_same_pages_with_the_same_headings(language):
    source, translated = DOCS / "en" / "customers", DOCS / language / "customers"

    assert [f.name for f in sorted(translated.glob("*"))] == [
        f.name for f in sorted(source.glob("*"))
    ]
    for file in source.glob("*.md"):
        theirs = headings(translated / file.name)
        assert [level for level, _ in theirs] == [level for level, _ in headings(file)], file.name
        assert links(translated / file.name) == links(file), file.name


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_is_one(language):
    for file in (DOCS / language).glob("*/*.md"):
        source = DOCS / "en" / file.parent.name / file.name
        same = set(file.read_text(encoding="utf-8").splitlines()) & set(
            source.read_text(encoding="utf-8").splitlines()
        )
        assert [line for line in same if len(line) > 20] == [], file


def test_every_link_from_a_page_leads_to_a_guide():
    files = (ROOT / "templates").rglob("*.html")
    said = "".join(file.read_text(encoding="utf-8") for file in files)
    found = re.findall(r"\{% url 'guide' '(\w+)' '([\w-]+)' %\}(?:#([\w-]+))?", said)

    assert len(found) >= 6
    for audience, slug, anchor in found:
        page = guides.library("en")[audience, slug]
        assert not anchor or anchor in [section.anchor for section in page.sections], anchor


# --- Search -----------------------------------------------------------------------------------

ASKED = [
    ("how do I take a merge back", "admins/merging"),
    ("my question was merged but mine is different", "customers/merged"),
    ("who can read my private question", "customers/private"),
    ("stop getting mail", "customers/following"),
    ("export my data", "customers/your-data"),
    ("lost my phone, recovery codes", "customers/account"),
    ("keyboard shortcuts", "agents/card"),
    ("what does skip do", "agents/verdicts"),
    ("save a filter as a view for everybody", "agents/queue"),
    ("why is there no percentage on this card, without its score", "agents/blind"),
    ("give an agent the right to merge", "admins/admin"),
    ("roll back to the previous release", "admins/releases"),
    ("create a token for a program", "admins/tokens"),
    ("redis is down", "operators/health"),
    ("restore a database dump", "operators/backups"),
    ("import questions from another portal", "operators/imports"),
    ("DEDUP_SHORTLIST", "operators/settings"),
    ("how can I change my password", "customers/account"),
    ("delete my account", "customers/your-data"),
    ("why was my question merged", "customers/merged"),
    ("the threshold is too low", "admins/releases"),
    ("formatting with Markdown", "customers/asking"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "page"), ASKED, ids=[query for query, _ in ASKED])
def test_a_question_finds_its_guide_first_or_second(query, page):
    found = guide_search.search(query, "en")

    assert page in [f"{hit.guide.audience}/{hit.guide.slug}" for hit in found[:2]]


def test_words_are_found_in_other_forms_and_marked():
    hit = guide_search.search("unsubscribing", "en")[0]

    assert "<mark>Unsubscribe</mark>" in hit.excerpt
    assert hit.address.startswith("/guides/")


@pytest.mark.parametrize(
    ("query", "language", "slug"),
    [("private Fragen", "de", "private"), ("الأسئلة الخاصة", "ar", "private"),
     ("Konto löschen", "de", "your-data"), ("حذف حسابي", "ar", "your-data")],
)  # fmt: skip
def test_translations_are_found_by_their_own_words(query, language, slug):
    hits = guide_search.search(query, language)[:2]

    assert (slug, language) in [(hit.guide.slug, hit.guide.language) for hit in hits]


def test_what_no_guide_speaks_of_is_not_found():
    assert guide_search.search("xylophone", "en") == []
    assert guide_search.search("??", "en") == []


# --- In the app -------------------------------------------------------------------------------


@pytest.mark.django_db
def test_everybody_reads_every_guide(client):
    for found in guides.library("en").values():
        answer = client.get(found.get_absolute_url())
        assert answer.status_code == 200, found
        assert answer.content.decode().count("<h1") == 1


@pytest.mark.django_db
def test_a_role_finds_its_own_guides_first(client, customer, agent, admin):
    for person, title in [
        (customer, "For everybody"),
        (agent, "For agents"),
        (admin, "For admins"),
    ]:
        client.force_login(person)
        shelves = re.findall(r"<h2[^>]*>([^<]*)</h2>", client.get("/guides/").content.decode())
        assert shelves[0] == title
        assert len(shelves) == len(guides.AUDIENCES)


@pytest.mark.django_db
def test_a_search_leads_to_the_heading(client):
    page = client.get("/guides/", {"q": "take many merges back"}).content.decode()

    assert 'href="/guides/admins/merging/#take-many-back"' in page


@pytest.mark.django_db
def test_a_guide_that_is_not_translated_says_so_and_keeps_its_direction(client, settings):
    settings.LANGUAGES, settings.LANGUAGE_CODE = [("ar", "Arabic")], "ar"
    with translation.override("ar"):
        theirs = client.get("/guides/agents/queue/").content.decode()
        own = client.get("/guides/customers/asking/").content.decode()
        said = gettext("This guide is not translated yet; here it is in English.")

    assert 'lang="en" dir="ltr"' in theirs
    assert said in theirs
    assert 'lang="ar" dir="rtl"' in own
    assert said not in own


@pytest.mark.django_db
def test_a_guide_that_does_not_exist_is_not_found(client):
    assert client.get("/guides/customers/nothing/").status_code == 404
    assert client.get("/guides/nobody/asking/").status_code == 404


def test_tables_and_code_can_be_scrolled_by_keys():
    page = guides.library("en")["operators", "settings"].html

    assert '<div class="table" role="group" tabindex="0" aria-label="The site">' in page
    assert '<pre tabindex="0">' in guides.library("en")["operators", "backups"].html


def test_links_between_guides_lead_to_pages_with_anchors():
    page = guides.library("en")["customers", "merged"].html

    assert 'href="/guides/customers/private/"' in page
    assert ".md" not in re.findall(r'href="([^"]*)"', page)
