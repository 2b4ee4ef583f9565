from django import forms

from support.models import Answer, Question


class QuestionForm(forms.ModelForm):  # type: ignore[type-arg]
    """A question as its asker writes it."""

    class Meta:
        model = Question
        fields = ["product", "title", "body", "audience"]
        labels = {"title": "Your question", "body": "Details", "audience": "Who can read it"}
        help_texts = {
            "title": "One sentence that says what you want to know.",
            "body": "What did you try, and what happened? Markdown works here.",
            "audience": "Private questions are seen by you and the support team only.",
        }
        widgets = {"body": forms.Textarea(attrs={"rows": 7}), "audience": forms.RadioSelect}


class EditForm(QuestionForm):
    """A question that is changed; `seen` is the version that the form was made from."""

    seen = forms.IntegerField(widget=forms.HiddenInput)

    class Meta(QuestionForm.Meta):
        fields = ["title", "body", "audience"]


class AnswerForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Answer
        fields = ["body"]
        labels = {"body": "Your answer"}
        widgets = {"body": forms.Textarea(attrs={"rows": 5})}
