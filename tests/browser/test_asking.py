"""The ask page while somebody writes."""

import pytest

from tests.factories import AnswerFactory, QuestionFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


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
