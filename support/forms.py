from allauth.account.forms import RequestLoginCodeForm
from allauth.account.models import EmailAddress
from django import forms
from django.utils.translation import gettext_lazy as _

from support.models import Answer, Product, Question, User
from support.models.validators import LARGEST_BODY


def text_area(rows: int) -> forms.Textarea:
    return forms.Textarea(attrs={"rows": rows, "maxlength": LARGEST_BODY, "dir": "auto"})


class QuestionForm(forms.ModelForm):
    """A question as its asker writes it."""

    product = forms.ModelChoiceField(
        Product.objects.order_by("name"), label=_("Product"), empty_label=_("Choose one")
    )

    class Meta:
        model = Question
        fields = ["product", "title", "body", "audience"]
        labels = {
            "title": _("Your question"),
            "body": _("Details"),
            "audience": _("Who can read it"),
        }
        help_texts = {
            "title": _("One sentence that says what you want to know."),
            "body": _("What did you try, and what happened? Markdown works here."),
            "audience": _("Private questions are seen by you and the support team only."),
        }
        widgets = {
            "title": forms.TextInput(attrs={"dir": "auto", "autocomplete": "off"}),
            "body": text_area(7),
            "audience": forms.RadioSelect,
        }


class GuestQuestionForm(QuestionForm):
    """A question by somebody who is not signed in."""

    email = forms.EmailField(
        label=_("Your mail address"),
        help_text=_(
            "We send a mail there; your question is sent once you confirm it on the page of its "
            "link. The address is shown to nobody."
        ),
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
        max_length=254,
    )


class GuestFollowForm(forms.Form):
    """Where somebody who is not signed in wants to hear of answers."""

    email = forms.EmailField(max_length=254)


class LoginCodeForm(RequestLoginCodeForm):
    """Who asks for a code to sign in with. Only a confirmed address gets one: else one could sign
    up with another's address, wait for its owner to come in by mail, and share their account."""

    def clean_email(self) -> str:
        self._user: User | None = None
        email: str = super().clean_email()
        if self._user and not EmailAddress.objects.filter(
            user=self._user, email=email, verified=True
        ):
            self._user = None
        return email


class EditForm(QuestionForm):
    """A question that is changed; `seen` is the version that the form was made from."""

    product = None  # type: ignore[assignment]  # stays what it was
    seen = forms.IntegerField(widget=forms.HiddenInput)

    class Meta(QuestionForm.Meta):
        fields = ["title", "body", "audience"]


class AnswerForm(forms.ModelForm):
    class Meta:
        model = Answer
        fields = ["body"]
        labels = {"body": _("Your answer")}
        widgets = {"body": text_area(5)}
