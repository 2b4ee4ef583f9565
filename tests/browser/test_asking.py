"""The ask page while somebody writes."""

import pytest

from dedup.models import Deflection
from support import merging, outbox
from tests.factories import AnswerFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


TITLE = "Why does the dimmer hum at night?"
FAILED = "Similar questions cannot be looked for at the moment."


@pytest.fixture(autouse=True)
def by_words(monkeypatch):
    """No worker answers."""
    monkeypatch.setattr(outbox, "send", lambda *_args, **_kwargs: False)


@pytest.fixture
def asker(visit, customer):
    visitor = visit(customer)
    visitor.posts = []
    visitor.page.on(
        "request",
        lambda request: request.url.endswith("/similar/") and visitor.posts.append(request),
    )
    return visitor


def test_at_most_five_come_and_the_focus_stays_where_somebody_types(asker):
    for _ in range(7):
        QuestionFactory(title="Why does the dimmer hum at night?")
    asker.open("/ask/")
    asker.page.locator("#id_title").press_sequentially("The dimmer hums at night")
    asker.page.get_by_text("5 similar questions found.").wait_for()

    assert asker.page.locator("#similar-found li").count() == 5
    assert asker.page.evaluate("document.activeElement.id") == "id_title"


def test_nothing_is_asked_of_the_server_between_two_keys(asker):
    asker.open("/ask/")
    with asker.page.expect_response("**/similar/"):
        asker.page.locator("#id_title").press_sequentially("The dimmer hums", delay=20)

    assert len(asker.posts) == 1


def test_fewer_than_ten_characters_find_nothing(asker):
    QuestionFactory(title="Dimmer")
    asker.open("/ask/")
    with asker.page.expect_response("**/similar/"):
        asker.page.fill("#id_title", "dimmer")

    assert asker.page.locator("#similar-found li").count() == 0
    assert "While you write" in asker.page.inner_text("#similar-status")


def test_the_beginning_of_an_answer_can_be_unfolded(asker):
    answer = AnswerFactory(body="It is **the coil**. Screw it tight.")
    asker.open("/ask/")
    asker.page.fill("#id_title", answer.question.title)
    beginning = asker.page.get_by_text("It is the coil. Screw it tight.")
    asker.page.get_by_text("How the answer begins").click()

    assert beginning.is_visible()


def test_who_saw_similar_questions_while_writing_is_not_stopped_again(asker):
    QuestionFactory(title="Why does the dimmer hum at night?")
    asker.open("/ask/")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.locator("#similar-found li").wait_for()
    asker.page.select_option("#id_product", label="Lamp")
    asker.page.get_by_role("button", name="Send the question").click()

    asker.page.get_by_text("Your question is received.").wait_for()


def test_a_draft_survives_a_reload_and_is_gone_once_it_is_sent(asker):
    QuestionFactory(title="Why does the dimmer hum at night?")
    asker.open("/ask/")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.fill("#id_body", "Since Tuesday.")
    asker.page.select_option("#id_product", label="Lamp")
    asker.page.reload()

    asker.page.locator("#similar-found li").wait_for()  # looked for again, too
    assert asker.page.input_value("#id_body") == "Since Tuesday."
    asker.page.get_by_role("button", name="Send the question").click()
    asker.page.get_by_text("Your question is received.").wait_for()
    asker.open("/ask/")
    assert asker.page.input_value("#id_title") == ""


def test_a_form_that_is_refused_keeps_what_was_typed_and_says_what_is_wrong(asker):
    QuestionFactory()
    asker.expected.add(400)
    asker.open("/ask/")
    asker.page.fill("#id_title", "   ")
    asker.page.fill("#id_body", "Since Tuesday.")
    asker.page.select_option("#id_product", label="Lamp")
    asker.page.get_by_role("button", name="Send the question").click()

    asker.page.locator(".field.wrong .errorlist").wait_for()
    assert asker.page.input_value("#id_body") == "Since Tuesday."
    assert asker.page.get_attribute("#id_title", "aria-invalid") == "true"


def write(asker, title="My dimmer hums at night"):
    asker.open("/ask/")
    asker.page.fill("#id_title", title)
    asker.page.locator("#similar-found li").first.wait_for()


def forgive(asker, *said):
    """What stands in the console of somebody whose network fails."""
    asker.wrong = [one for one in asker.wrong if not any(words in one for words in said)]


def test_a_draft_keeps_who_may_read_it_and_what_it_is_about(asker):
    QuestionFactory(title=TITLE)
    asker.open("/ask/")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.select_option("#id_product", label="Lamp")
    asker.page.get_by_label("Private").check()
    asker.page.reload()
    asker.page.locator("#similar-found li").wait_for()

    assert asker.page.get_by_label("Private").is_checked()
    assert asker.page.locator("#id_product option:checked").inner_text() == "Lamp"


def test_another_title_from_a_search_is_not_mixed_with_an_old_draft(asker):
    asker.open("/ask/")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.fill("#id_body", "Since Tuesday.")
    asker.open("/ask/?title=Where+is+my+invoice")
    asker.page.wait_for_load_state("networkidle")

    assert asker.page.input_value("#id_title") == "Where is my invoice"
    assert asker.page.input_value("#id_body") == ""


def test_what_solved_it_is_one_click_away_and_the_draft_stays_until_it_is_done_with(asker):
    question = QuestionFactory(title=TITLE)
    AnswerFactory(question=question)
    write(asker)
    asker.page.get_by_role("button", name="This solved it").click()
    asker.page.get_by_text("thank you for saying so").wait_for()
    assert asker.path() == question.get_absolute_url()
    assert Deflection.objects.get().solved_question == question

    asker.page.get_by_role("link", name="Back to what I wrote").click()
    asker.page.locator("#similar-found li").wait_for()
    assert asker.page.input_value("#id_title") == "My dimmer hums at night"

    asker.page.get_by_role("button", name="This solved it").click()
    asker.page.get_by_role("button", name="I am done").click()
    asker.page.get_by_text("What you wrote is gone.").wait_for()
    asker.open("/ask/")
    assert asker.page.input_value("#id_title") == ""


def test_enter_in_the_title_never_says_that_something_solved_it(asker):
    QuestionFactory(title=TITLE)
    write(asker)
    asker.page.select_option("#id_product", label="Lamp")
    asker.page.locator("#id_title").press("Enter")

    asker.page.get_by_text("Your question is received.").wait_for()
    assert Deflection.objects.get().solved_at is None


@pytest.mark.parametrize("with_key", [True, False])
def test_what_is_different_goes_to_the_end_of_the_details_where_it_can_be_changed(asker, with_key):
    QuestionFactory(title=TITLE)
    asker.open("/ask/")
    assert not asker.page.get_by_text("Mine is different").is_visible()
    asker.page.fill("#id_body", "Since Tuesday.")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.get_by_text("Mine is different").click()
    asker.page.fill("#id_difference", "Mine hums by day.")
    if with_key:
        asker.page.locator("#id_difference").press("Enter")
    else:
        asker.page.get_by_role("button", name="Add it to the details").click()

    body = "Since Tuesday.\n\nWhat is different: Mine hums by day."
    assert asker.page.input_value("#id_body") == body
    assert asker.page.input_value("#id_difference") == ""
    assert asker.path() == "/ask/"
    asker.page.reload()
    asker.page.locator("#similar-found li").wait_for()
    assert asker.page.input_value("#id_body") == body


def test_an_opening_is_counted_once_and_unfolding_an_answer_is_one(asker):
    AnswerFactory(question=QuestionFactory(title=TITLE))
    write(asker)
    with asker.page.expect_response("**/ask/opened/"):
        asker.page.get_by_text("How the answer begins").click()

    assert Deflection.objects.get().opened_at


def test_the_answer_to_an_older_text_never_replaces_the_newer_one_s(asker):
    QuestionFactory(title=TITLE)
    QuestionFactory(title="Where do invoices go when paid?")
    held = []
    asker.page.route(
        "**/ask/similar/", lambda route: held.append(route) if not held else route.continue_()
    )
    asker.open("/ask/")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.wait_for_timeout(600)
    assert len(held) == 1
    asker.page.fill("#id_title", "Where do my invoices go")
    asker.page.get_by_role("link", name="Where do invoices go").wait_for()
    held[0].continue_()  # too late
    asker.page.wait_for_timeout(300)

    assert asker.page.locator("#similar-found li").count() == 1
    assert "invoices" in asker.page.inner_text("#similar-found")
    forgive(asker, "htmx:")  # it says of what it gave up


@pytest.mark.parametrize("status", [0, 503])
def test_where_the_network_fails_that_is_said_and_nothing_is_claimed(asker, status):
    QuestionFactory(title=TITLE)
    write(asker)
    asker.expected |= {503}
    asker.page.route(
        "**/ask/similar/",
        lambda route: route.fulfill(status=status, body="") if status else route.abort(),
    )
    asker.page.fill("#id_title", "My dimmer hums by day")
    asker.page.get_by_text(FAILED).wait_for()

    assert asker.page.locator("#similar-found li").count() == 0
    assert "No similar" not in asker.page.inner_text("#similar-status")
    asker.page.unroute("**/ask/similar/")
    asker.page.fill("#id_title", "My dimmer hums at night")
    asker.page.locator("#similar-found li").wait_for()
    forgive(asker, "htmx:", "net::ERR", "Response Status Error Code 503")


def test_without_javascript_the_same_comes_as_a_second_step(visit, customer):
    question = AnswerFactory(question=QuestionFactory(title=TITLE)).question
    visitor = visit(customer, java_script_enabled=False)
    visitor.leave = visitor.context.close
    visitor.open("/ask/")
    page = visitor.page
    assert not page.get_by_text("Mine is different").is_visible()
    page.fill("#id_title", "My dimmer hums at night")
    page.select_option("#id_product", label="Lamp")
    page.get_by_role("button", name="Send the question").click()
    page.get_by_text("One moment: these look like your question.").wait_for()
    page.fill("#id_difference", "Mine hums by day.")
    page.get_by_role("button", name="Add it to the details").click()
    assert page.input_value("#id_body") == "What is different: Mine hums by day."
    page.get_by_role("button", name="Mine is different, send it").click()
    page.get_by_text("Your question is received.").wait_for()

    visitor.open("/ask/")
    page.fill("#id_title", "Another dimmer hums at night")
    page.select_option("#id_product", label="Lamp")
    page.get_by_role("button", name="Send the question").click()
    page.get_by_role("button", name=f"This solved it “{TITLE}”").click()
    page.get_by_text("thank you for saying so").wait_for()
    assert visitor.path() == question.get_absolute_url()
    assert not page.get_by_text("Back to what I wrote").is_visible()


def test_a_way_to_an_answer_of_a_duplicate_ends_at_it_and_mine_is_different_is_unfolded(
    asker, customer, admin
):
    duplicate = QuestionFactory(title="A dimmer", asked_by=customer)
    answer = AnswerFactory(question=duplicate)
    merging.merge(duplicate=duplicate, canonical=QuestionFactory(title=TITLE), by=admin)
    asker.open(f"{duplicate.get_absolute_url()}#answer-{answer.pk}")
    assert asker.page.url.endswith(f"#answer-{answer.pk}")
    assert asker.page.locator(":target").inner_text().count("Turn it to the left.") == 1

    asker.open("/mine/")
    asker.page.get_by_role("link", name="Mine is different").click()
    asker.page.locator("#dispute-reason").wait_for()
    assert asker.page.locator("#different").evaluate("one => one.open")
