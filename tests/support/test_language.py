import pytest

from support import asking, importing, language
from support.models import Question
from tests.factories import ProductFactory, QuestionFactory, UserFactory


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("How do I reset my password?", "en"),
        ("Wie kann ich mein Passwort zurücksetzen?", "de"),
        ("Pourquoi ai-je été débité deux fois ?", "fr"),
        ("¿Dónde está mi pedido?", "es"),
        ("كيف يمكنني إعادة تعيين كلمة المرور؟", "ar"),
        ("パスワードをリセットするにはどうすればいいですか？", "ja"),
    ],
)
def test_the_language_of_a_question_is_known(text, code):
    assert language.detected(text) == code


@pytest.mark.parametrize("text", ["", "   ", "E-4711", "?!", "0x80070057"])
def test_what_is_written_in_no_language_is_left_open(text):
    assert language.detected(text) == ""


def test_the_body_counts_too_and_a_long_one_is_cut():
    assert language.detected("Login", "Ich komme nicht mehr in mein Konto hinein. " * 5000) == "de"


@pytest.mark.django_db
def test_a_question_has_its_language_from_the_start_and_anew_after_an_edit():
    asker = UserFactory()
    question = asking.submit_question(
        product=ProductFactory(), title="Wo finde ich meine Kundennummer?", body="",
        audience="public", by=asker,
    )  # fmt: skip
    assert Question.objects.get(pk=question.pk).language == "de"

    asking.edit_question(
        question=question, title="Where do I find my customer number?", body="",
        audience="public", by=asker, seen=1,
    )  # fmt: skip

    assert Question.objects.get(pk=question.pk).language == "en"


@pytest.mark.django_db
def test_imported_questions_have_a_language(tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text('{"site": "a.b", "id": 1, "title": "Comment fermer la fenêtre du salon ?"}\n')

    with file.open("rb") as lines:
        importing.import_questions(lines)

    assert Question.objects.get().language == "fr"


@pytest.mark.django_db
def test_a_question_from_before_languages_were_known_is_of_none():
    assert QuestionFactory().language == ""
