"""Words that mean each other light up together, by mouse, finger and key."""

import pytest

from dedup.texts import text_of
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

NUMBER = "(one) => getComputedStyle(one, '::after').content.split(' ')[0]"


def aligned_pair(release, probability):
    older = QuestionFactory(title="Where is the switch?", body="My room is dark.")
    newer = QuestionFactory(title="I cannot find the lever", body="The chamber is black.")
    return FlagFactory(
        release=release, probability=probability, older=older, newer=newer,
        older_hash=text_of(older).hash, newer_hash=text_of(newer).hash,
        alignment=[["lever", 0, "switch", 0, 0.7], ["chamber", 0, "room", 0, 0.6],
                   ["black", 0, "dark", 0, 0.8]],
    )  # fmt: skip


@pytest.fixture
def pairs():
    release = ReleaseFactory(is_active=True)
    return [aligned_pair(release, probability) for probability in (0.9, 0.8)]


@pytest.fixture
def reviewer(visit, agent, pairs):
    visitor = visit(agent)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")
    return visitor


def lit(visitor):
    return visitor.page.locator(".lit").all_text_contents()


def word(visitor, text):
    return visitor.page.locator("[data-word]", has_text=text)


def test_pointing_at_a_word_lights_it_and_its_partner_only(reviewer):
    for pointed_at in ("chamber", "room"):
        word(reviewer, pointed_at).hover()

        assert lit(reviewer) == ["chamber", "room"]
        outline = word(reviewer, "room").evaluate("(one) => getComputedStyle(one).outlineStyle")
        assert outline == "solid"

    reviewer.page.locator("h1").hover()
    assert lit(reviewer) == []


def test_a_finger_taps_a_word_and_elsewhere_to_end_it(visit, agent, pairs):
    visitor = visit(agent, has_touch=True)
    visitor.open(f"/review/{pairs[0].pk}/")
    visitor.page.wait_for_load_state("networkidle")

    word(visitor, "black").tap()
    assert lit(visitor) == ["black", "dark"]

    visitor.page.locator("h1").tap()
    assert lit(visitor) == []


def test_a_key_numbers_all_words_also_on_the_next_card_and_after_a_reload(reviewer, pairs):
    button = reviewer.page.get_by_role("button", name="Word pairs")
    text = reviewer.page.locator(".sides").text_content()
    assert button.get_attribute("aria-pressed") == "false"
    assert word(reviewer, "switch").evaluate(NUMBER) == "none"

    reviewer.page.keyboard.press("a")
    assert button.get_attribute("aria-pressed") == "true"
    for mates, number in ((("lever", "switch"), "1"), (("chamber", "room"), "2")):
        assert {word(reviewer, mate).evaluate(NUMBER) for mate in mates} == {f'"{number}"'}
    assert reviewer.page.locator(".sides").text_content() == text

    reviewer.page.keyboard.press("j")
    reviewer.page.wait_for_selector(f"[data-card='{pairs[1].pk}']")
    assert (button.get_attribute("aria-pressed"), button.is_visible()) == ("true", True)
    word(reviewer, "dark").hover()
    assert lit(reviewer) == ["black", "dark"]

    reviewer.page.reload()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert word(reviewer, "switch").evaluate(NUMBER) == "none"


def test_words_are_no_stops_for_the_keyboard_and_need_no_script(reviewer, visit, agent, pairs):
    assert word(reviewer, "room").evaluate("(one) => one.tabIndex") == -1

    without = visit(agent, java_script_enabled=False)
    without.open(f"/review/{pairs[0].pk}/")

    assert "My room is dark." in without.page.locator(".sides").text_content()
    assert without.page.get_by_role("button", name="Word pairs").count() == 0
