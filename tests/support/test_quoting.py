import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import quoting


@pytest.mark.parametrize(
    "introduction",
    [
        "On Fri, Nov 27, 2026 at 9:58 AM AskOnce <a@b.example> wrote:",
        "On Fri, Nov 27, 2026 at 9:58 AM AskOnce <\na@b.example> wrote:",
        "Am Fr., 27. Nov. 2026 um 10:02 Uhr schrieb AskOnce <\na@b.example>:",
        "Am 27.11.26 um 09:58 schrieb AskOnce:",
        "AskOnce schrieb am 27.11.2026:",
        "Le ven. 27 nov. 2026 à 09:58, AskOnce <a@b.example> a écrit :".replace(" :", ":"),
        "El vie, 27 nov 2026 a las 9:58, AskOnce (<a@b.example>) escribió:",
        "Il giorno ven 27 nov 2026 alle ore 09:58 AskOnce ha scritto:",
        "Op vr 27 nov 2026 om 09:58 schreef AskOnce <a@b.example>:",
        "في 27 نوفمبر 2026، كتب AskOnce:",
    ],
)
def test_what_introduces_a_quote_goes_with_it_in_many_languages(introduction):
    text = f"Mine.\n\n{introduction}\n\n> Turn it.\n"

    assert quoting.own_words(text) == "Mine."


@pytest.mark.parametrize(
    "head",
    [
        "From: A <a@b.example>\nSent: Friday\nTo: B\nSubject: x",
        "**From:** A\n**Sent:** Friday\n**To:** B\n**Subject:** x",
        "Von: A\nGesendet: Freitag\nAn: B\nBetreff: x",
        "De : A\nEnvoyé : vendredi\nÀ : B\nObjet : x".replace(" :", ":"),
        "-----Original Message-----",
        "---------- Forwarded message ---------",
        "________________________________\nFrom: A\nSent: Friday\nTo: B",
    ],
)
def test_an_older_message_below_is_left_out(head):
    assert quoting.own_words(f"Mine.\n\n{head}\n\nTurn it.\n") == "Mine."


def test_what_is_written_below_and_between_quotes_stays():
    text = "On 27 Nov 2026, A wrote:\n> Turn it.\nI did.\n\n> And wait.\nHow long?\n-- \nAda\n"

    assert quoting.own_words(text) == "I did.\n\nHow long?"


@pytest.mark.parametrize(
    "text",
    [
        "Use this:\n\n    if x:\n        go()\n\n- first\n- second",
        "She wrote:\n\nturn it to the left.",
        "In 1984 Orwell wrote:\n\nnothing about lamps.",
        "```\n> lamp --turn\n--\nFrom: x\nTo: y\nSubject: z\n```",
        "From: here it is far.\n\nTo: there it is not.",
        "Best regards are what the log says:\n\nmore",
        "Lines\n\nand lines -- with dashes",
        "",
    ],
)
def test_ones_own_words_stay_as_they_are(text):
    assert quoting.own_words(text) == text


def test_a_fence_that_is_never_closed_hides_no_quote():
    assert quoting.own_words("```\nlamp\n\nOn 1 May, A wrote:\n> Turn it.") == "```\nlamp"


@pytest.mark.parametrize(
    "line",
    [
        "Sent from my iPhone", "Von meinem iPhone gesendet", "Gesendet von Outlook für Android",
        "Get Outlook for iOS<https://aka.ms/o0ukef>", "[Outlook für iOS](https://aka.ms/x)",
        "Diese Nachricht wurde von meinem Android-Gerät mit K-9 Mail gesendet.",
        "Envoyé de mon iPhone",
    ],
)  # fmt: skip
def test_what_a_telephone_writes_below_is_left_out(line):
    assert quoting.own_words(f"Mine.\n\n{line}\n") == "Mine."
    assert quoting.own_words(f"{line}\n\nMine.") == f"{line}\n\nMine."


@pytest.mark.parametrize(
    "text",
    [
        "On a " * 60_000, "On a\n" * 60_000, "> " * 100_000, ">" * 300_000, "wrote:\n" * 40_000,
        "From: a\n" * 40_000, "-" * 300_000, " wrote" * 50_000 + ":", "\n" * 300_000,
        "a 1 @ wrote " * 20_000 + ":\n", "_ * " * 80_000, "Von meinem " * 30_000,
    ],
)  # fmt: skip
def test_no_text_takes_long(text):
    begun = time.process_time()

    quoting.own_words(text)

    assert time.process_time() - begun < 3


@given(st.text(alphabet="ab1>@:-\n `", max_size=200))
def test_nothing_is_added_to_what_somebody_wrote(text):
    kept = quoting.own_words(text)

    lines = {line.rstrip() for line in text.split("\n")}
    assert {line for line in kept.split("\n") if line} <= lines
