"""Search: by words and meaning, held to a product, a state or a language, in pages, with the found
words marked."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.search import SearchHeadline, SearchQuery
from django.core.cache import cache
from django.core.paginator import Page, Paginator
from django.db.models import F, Value
from django.db.models.functions import Replace
from django.utils.crypto import salted_hmac
from django.utils.html import escape
from django.utils.safestring import SafeString

from dedup import suggesting
from dedup.suggesting import Ranking, Suggestion, Suggestions
from support import thread
from support.models import Answer, Product, Question, User
from support.models.question import QuestionQuerySet
from support.templatetags.texts import plain

SHORTEST = 3  # characters
MOST, ON_PAGE = 60, 15
STATES = ("answered", "open")
KEPT_SECONDS = 600  # further pages are of what the first one found
MARKED_WORDS = 20  # of a query; each costs Postgres a look at each text

PIECE, BEFORE = 240, 60  # characters of a text that are shown, and of those before a found word

# Characters that no text has a meaning for; an angle bracket is hidden from Postgres, which would
# leave out what it takes for a tag.
START, STOP, BRACKET = "\ue000", "\ue001", "\ue002"
MARK = re.compile(f"{START}([^{START}{STOP}]*){STOP}")


@dataclass(frozen=True)
class Filters:
    """What a search is held to; nothing chosen holds it to nothing."""

    product: Product | None = None
    state: str = ""
    language: str = ""

    def narrow(self, questions: QuestionQuerySet) -> QuestionQuerySet:
        """Live questions, annotated `answered`, that fit."""
        found = questions.live().with_answered()
        if self.product:
            found = found.filter(product=self.product)
        if self.state in STATES:
            found = found.filter(answered=self.state == "answered")  # type: ignore[misc]
        return found.filter(language=self.language) if self.language else found

    def fits(self, question: Question) -> bool:
        """Whether a question annotated `answered` is one of those; its product was asked for."""
        if self.state in STATES and question.answered != (self.state == "answered"):  # type: ignore[attr-defined]
            return False
        return not self.language or question.language == self.language


@dataclass(frozen=True)
class Hit:
    """A question that was found, its found words marked, as HTML that is safe to show."""

    question: Question
    title: SafeString
    found_as: SafeString | None  # the title of the merged duplicate whose words were found
    snippet: SafeString
    is_from_answer: bool  # the snippet


@dataclass(frozen=True)
class Results:
    """One page of what was found, and what its order was made by."""

    page: Page
    hits: list[Hit]
    ranked_by: Ranking


def search(
    query: str,
    reader: User | AnonymousUser,
    *,
    product: Product | None = None,
    state: str = "",
    language: str = "",
    page: str | int = 1,
) -> Results:
    """Return a page of the questions that `reader` may see and that resemble `query`, likeliest
    first. Filters hold before pages are cut; pages after the first are of what that one found."""
    filters = Filters(product, state, language)
    found = _found(query, reader, product, is_first=str(page or 1) == "1")
    fitting = [one for one in found.found if filters.fits(one.question)]
    shown = Paginator(fitting, ON_PAGE).get_page(page)
    return Results(shown, _hits(list(shown), query, reader), found.ranked_by)


def newest(reader: User | AnonymousUser, filters: Filters, page: str | int) -> Page:
    """A page of the live questions that `reader` may see, newest first."""
    rows = filters.narrow(Question.objects.visible_to(reader).written()).select_related("product")
    return Paginator(rows.order_by("-asked_at", "-pk"), ON_PAGE).get_page(page)


def languages() -> list[str]:
    """Codes of the languages in which public questions are written, to choose from."""
    known: list[str] | None = cache.get("search-languages")
    if known is None:
        public = Question.objects.visible_to(AnonymousUser()).live().exclude(language="")
        known = sorted(public.order_by().values_list("language", flat=True).distinct())
        cache.set("search-languages", known, KEPT_SECONDS)
    return known


def _found(
    query: str, reader: User | AnonymousUser, product: Product | None, *, is_first: bool
) -> Suggestions:
    """What was found; the first page looks anew, and leaves ids to the others, whose order would
    else change between them where the networks answer once and once not."""
    place = (query, reader.pk, product.pk if product else None)
    key = f"search-{salted_hmac('dedup.searching', repr(place)).hexdigest()}"
    kept = None if is_first else cache.get(key)
    if kept:
        return Suggestions(_again(kept["ids"], reader), Ranking(kept["ranked_by"]))
    found = suggesting.similar(
        title=query, reader=reader, product_id=product.pk if product else None, limit=MOST,
        only_likely=False,
    )  # fmt: skip
    if len(found.found) > ON_PAGE:
        ids = [(one.question.pk, one.found_as and one.found_as.pk) for one in found.found]
        cache.set(key, {"ids": ids, "ranked_by": str(found.ranked_by)}, KEPT_SECONDS)
    return found


def _again(ids: Sequence[tuple[int, int | None]], reader: User | AnonymousUser) -> list[Suggestion]:
    """What was found a moment ago, as far as it still stands and may still be read."""
    readable = Question.objects.visible_to(reader).with_answered().select_related("product")
    rows = readable.in_bulk([pk for pair in ids for pk in pair if pk])
    duplicates: dict[tuple[int | None, int | None], Question] = {
        (row.canonical_id, row.pk): row for row in rows.values()
    }
    return [
        Suggestion(rows[pk], duplicates.get((pk, found_as)))
        for pk, found_as in ids
        if pk in rows and rows[pk].canonical_id is None
    ]


def _hits(found: list[Suggestion], query: str, reader: User | AnonymousUser) -> list[Hit]:
    """The found words of a page marked: in titles, and in the body or else in the best answer."""
    if not found:
        return []
    words = _any_of(query)
    questions = [one.question for one in found]
    ids = [one.pk for pair in found for one in (pair.question, pair.found_as) if one]
    marked = Question.objects.visible_to(reader).annotate(
        marked_title=_marked("title", words), marked_body=_marked("body", words)
    )
    texts = {
        pk: (title, body)
        for pk, title, body in marked.filter(pk__in=ids).values_list(
            "pk", "marked_title", "marked_body"
        )
    }
    answers = _answers(questions, words, reader)
    return [_hit(one, texts, answers.get(one.question.pk, "")) for one in found]


def _hit(found: Suggestion, texts: Mapping[int, tuple[str, str]], answer: str) -> Hit:
    title, body = texts.get(found.question.pk, (found.question.title, found.question.body))
    is_from_answer = bool(answer) and START not in body and (START in answer or not body)
    return Hit(
        question=found.question,
        title=with_marks(escape(_unhidden(title))),
        found_as=with_marks(escape(_unhidden(texts[found.found_as.pk][0])))
        if found.found_as and found.found_as.pk in texts
        else None,
        snippet=with_marks(_piece(answer if is_from_answer else body)),
        is_from_answer=is_from_answer,
    )


def _answers(
    questions: Iterable[Question], words: SearchQuery, reader: User | AnonymousUser
) -> dict[int, str]:
    """The answer that stands first, marked, by the id of its question."""
    first = {pk: given[0].pk for pk, given in thread.answers(list(questions), reader).items()}
    rows = Answer.objects.filter(pk__in=first.values()).annotate(marked=_marked("body", words))
    texts = dict(rows.values_list("pk", "marked"))
    return {pk: texts.get(answer, "") for pk, answer in first.items()}


def _any_of(query: str) -> SearchQuery:
    """Any of the words of a query, in any of their forms."""
    words = re.findall(r"\w+", query)[:MARKED_WORDS] or [""]
    parts = (SearchQuery(word, config="english") for word in dict.fromkeys(words))
    return reduce(or_, parts)


def _marked(field: str, words: SearchQuery) -> SearchHeadline:
    """A whole text: Postgres cuts pieces out of it that begin and end anywhere."""
    hidden = Replace(F(field), Value("<"), Value(BRACKET))
    return SearchHeadline(
        hidden, words, config="english", start_sel=START, stop_sel=STOP, highlight_all=True
    )


def _piece(marked: str) -> str:
    """Of a marked Markdown text what stands around its first found word, as escaped plain text,
    with dots where it goes on."""
    text = plain(_unhidden(marked))
    found = max(text.find(START), 0)
    begin, end = 0, len(text)
    if found > BEFORE:
        space = text.rfind(" ", max(found - 2 * BEFORE, 0), found - BEFORE)
        begin = space + 1 if space >= 0 else found - BEFORE
    if end > begin + PIECE:
        space = text.rfind(" ", begin + PIECE // 2, begin + PIECE)
        end = space if space >= 0 else begin + PIECE
    return f"{'… ' if begin else ''}{text[begin:end]}{' …' if end < len(text) else ''}"


def _unhidden(text: str) -> str:
    return text.replace(BRACKET, "<")


def with_marks(html: str) -> SafeString:
    """HTML that is safe already, with what stands between the delimiters marked."""
    marked = MARK.sub(r"<mark>\1</mark>", html)
    return SafeString(re.sub(f"[{START}{STOP}{BRACKET}]", "", marked))
