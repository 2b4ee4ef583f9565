import pytest
from django.contrib.auth.models import AnonymousUser

from dedup import searching, suggesting
from dedup.suggesting import Ranking, Suggestion, Suggestions
from support import answering, erasing, merging, outbox
from support.models import Question
from tests.factories import AnswerFactory, ProductFactory, QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def by_words(monkeypatch):
    """No worker answers."""
    monkeypatch.setattr(outbox, "send", lambda *_args, **_kwargs: False)


@pytest.fixture
def found(monkeypatch):
    """What a search finds, in this order; returns the list of what was searched for."""
    searched = []

    def find(*questions, ranked_by=Ranking.SCORES):
        def similar(**given):
            searched.append(given)
            rows = Question.objects.with_answered().select_related("product")
            by_id = rows.in_bulk([question.pk for question in questions])
            return Suggestions([Suggestion(by_id[one.pk]) for one in questions], ranked_by)

        monkeypatch.setattr(suggesting, "similar", similar)
        return searched

    return find


def search(query="switch", reader=None, **given):
    return searching.search(query, reader or AnonymousUser(), **given)


def questions(results):
    return [hit.question for hit in results.hits]


def test_found_words_are_marked_in_the_title_and_in_the_body_in_any_of_their_forms():
    QuestionFactory(title="The switches hum", body="I **switched** it off.")

    (hit,) = search().hits

    assert hit.title == "The <mark>switches</mark> hum"
    assert hit.snippet == "I <mark>switched</mark> it off."
    assert not hit.is_from_answer


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("", "", "A <mark>switch</mark> it is."),
        ("**word** " * 60, " [word](http://a.example)" * 60, "word A <mark>switch</mark> it"),
        ("言葉" * 200 + " ", "言葉" * 200, "<mark>switch</mark>"),
        ("word " * 60, "", "… word"),
        ("", " word" * 60, "word …"),
    ],
)
def test_a_piece_of_a_text_says_where_the_text_goes_on(before, after, shown):
    QuestionFactory(title="It is dark", body=f"{before}A switch it is.{after}")

    (hit,) = search().hits

    assert shown in hit.snippet
    assert hit.snippet.startswith("…") == bool(before)
    assert hit.snippet.endswith("…") == bool(after)
    assert len(hit.snippet) < 300
    assert "*" not in hit.snippet
    assert "http" not in hit.snippet


@pytest.mark.parametrize("language", ["en", "fr", ""])
def test_the_filters_show_what_is_chosen(client, language):
    for code in ("en", "fr"):
        QuestionFactory(language=code)
    shown = client.get("/", {"language": language}).content.decode()

    for code, name in (("en", "English"), ("fr", "French")):
        chosen = " selected" if code == language else " "
        assert f'<option value="{code}"{chosen}>{name}</option>' in shown


@pytest.mark.parametrize("title", ["<script>alert(1)</script> switch", "switch <b>&amp;</b>"])
def test_a_title_with_tags_is_shown_as_it_is_and_does_nothing(title, client):
    QuestionFactory(title=title, body=f"{title} <img src=x onerror=alert(1)>")

    (hit,) = search().hits
    page = client.get("/", {"q": "switch"}).content.decode()

    assert "<mark>switch</mark>" in hit.title
    for shown in (hit.title, hit.snippet, page.partition("<main")[2]):
        assert "<script>" not in shown
        assert "<img" not in shown
        assert "<b>" not in shown
    assert hit.title.replace("<mark>", "").replace("</mark>", "").count("&lt;") == 2


@pytest.mark.parametrize("odd", ["\ue000", "\ue001", "\ue002script>", "\ue001\ue000"])
def test_who_writes_our_delimiters_opens_no_tag(odd):
    QuestionFactory(title=f"A switch {odd} hums", body=f"{odd} The switch {odd}")

    (hit,) = search().hits

    for shown in (hit.title, hit.snippet):
        assert shown.count("<mark>") == shown.count("</mark>")
        assert "<script" not in shown


def test_the_best_answer_is_shown_where_the_words_stand_in_it_alone():
    question = QuestionFactory(title="It is a switch", body="Dark.")
    AnswerFactory(question=question, body="No idea.")
    solution = AnswerFactory(question=question, body="The switch is behind the *door*.")
    answering.accept_answer(question=question, answer=solution, by=question.asked_by)

    (hit,) = search().hits

    assert hit.snippet == "The <mark>switch</mark> is behind the door."
    assert hit.is_from_answer


def test_what_was_merged_is_found_by_its_own_title_and_shown_as_the_one_that_stands(admin):
    canonical = QuestionFactory(title="Lamp stays dark", body="")
    duplicate = QuestionFactory(title="Flickering chandelier <b>", body="")
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    (hit,) = search("chandelier").hits

    assert (hit.question, hit.title) == (canonical, "Lamp stays dark")
    assert hit.found_as == "Flickering <mark>chandelier</mark> &lt;b&gt;"


def test_a_state_is_looked_for_in_all_that_was_found_not_in_a_page_of_it(found):
    asked = QuestionFactory.create_batch(20, title="switch")
    AnswerFactory(question=asked[-1])
    found(*asked)

    assert questions(search(state="answered")) == [asked[-1]]
    assert search(state="open").page.paginator.count == 19


def test_a_search_is_held_to_a_product_and_a_language():
    lamp = QuestionFactory(title="switch", language="en")
    fan = QuestionFactory(title="switch", language="de", product=ProductFactory(slug="fan"))

    assert questions(search(product=fan.product)) == [fan]
    assert questions(search(language="en")) == [lamp]
    assert questions(search(product=fan.product, language="en")) == []


def test_pages_have_fifteen_and_the_next_goes_on_where_the_first_ended(found):
    asked = QuestionFactory.create_batch(40, title="switch")
    searched = found(*asked)

    first = search()
    found(*reversed(asked), ranked_by=Ranking.WORDS)  # would be another order
    second, third = search(page=2), search(page="3")

    assert questions(first) + questions(second) + questions(third) == asked
    assert second.ranked_by == third.ranked_by == Ranking.SCORES
    assert searched[0]["limit"] == 60
    assert len(searched) == 1


def test_what_became_private_or_was_merged_meanwhile_is_on_no_further_page(found, admin):
    asked = QuestionFactory.create_batch(20, title="switch")
    found(*asked)
    search()
    Question.objects.filter(pk=asked[16].pk).update(audience="private")
    merging.merge(duplicate=asked[17], canonical=asked[18], by=admin)

    shown = questions(search(page=2))

    assert asked[16] not in shown
    assert asked[17] not in shown
    assert asked[18] in shown


def test_one_reader_s_further_pages_are_not_another_s(found, customer, agent):
    found(*QuestionFactory.create_batch(20, title="switch", audience="private"))
    search(reader=agent)
    searched = found()

    assert questions(search(reader=customer, page=2)) == []
    assert len(searched) == 2  # looked anew for whom nothing was kept


def test_a_page_that_is_none_is_the_nearest_that_there_is(found):
    found(*QuestionFactory.create_batch(20, title="switch"))

    assert len(search(page="99").hits) == 5
    assert len(search(page="x").hits) == 15


@pytest.mark.parametrize("query", ["the of and", "(((", "!!! & | :*", "\\' ''", "a" * 200])
def test_a_query_without_words_fails_nowhere(query):
    QuestionFactory(title="the of and")

    assert search(query).ranked_by is Ranking.WORDS


@pytest.mark.parametrize(
    ("ranked_by", "words"),
    [
        (Ranking.WORDS, "the search by meaning is away"),
        (Ranking.MEANING, "In rough order"),
        (Ranking.SCORES, None),
    ],
)
def test_what_the_order_was_made_by_is_said_where_it_is_not_the_best(
    found, client, ranked_by, words
):
    found(QuestionFactory(title="switch"), ranked_by=ranked_by)
    shown = client.get("/?q=switch").content.decode()

    said = [one for one in ("the search by meaning is away", "In rough order") if one in shown]
    assert said == ([words] if words else [])


def test_nothing_found_with_filters_leads_to_the_search_without_them(client):
    QuestionFactory(title="switch")
    shown = client.get("/?q=switch&state=answered").content.decode()

    assert "Nothing like it with these filters" in shown
    assert 'href="?q=switch"' in shown


def test_what_was_looked_for_goes_along_to_the_ask_page(client, customer):
    product = ProductFactory(slug="fan")
    shown = client.get("/?q=Where is it&product=fan&state=open").content.decode()
    assert 'href="/ask/?product=fan&amp;title=Where+is+it"' in shown

    client.force_login(customer)
    form = client.get("/ask/?product=fan&title=Where+is+it").context["form"]
    assert (form["title"].value(), form["product"].value()) == ("Where is it", product.pk)


def test_languages_to_choose_from_are_those_of_public_questions():
    QuestionFactory(language="de")
    QuestionFactory(language="fr", audience="private")
    QuestionFactory(language="")

    assert searching.languages() == ["de"]


@pytest.mark.parametrize("count", [2, 15])
def test_a_search_takes_13_queries_however_many_it_finds(
    client, admin, count, django_assert_num_queries
):
    for number in range(count):
        question = QuestionFactory(title=f"A switch {number}")
        AnswerFactory.create_batch(2, question=question)
        merging.merge(duplicate=QuestionFactory(title="Knob"), canonical=question, by=admin)
    client.get("/?q=switch")

    with django_assert_num_queries(13):
        answer = client.get("/?q=switch")
    assert len(answer.context["results"].hits) == count


def test_what_its_writer_had_erased_is_neither_found_nor_listed():
    gone, other = QuestionFactory(title="The switch hums"), QuestionFactory(title="A by its writer")
    AnswerFactory(question=gone)
    erasing.erase(person=gone.asked_by, by=None)

    assert questions(search("erased by its writer")) == [other]
    assert list(searching.newest(AnonymousUser(), searching.Filters(), 1)) == [other]
