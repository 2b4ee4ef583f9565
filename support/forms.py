from itertools import groupby
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import RequestLoginCodeForm, ResetPasswordForm
from allauth.account.models import EmailAddress
from allauth.mfa.base import forms as codes
from allauth.mfa.webauthn import forms as webauthn
from django import forms
from django.conf import settings
from django.utils.html import escape
from django.utils.translation import get_language_info
from django.utils.translation import gettext_lazy as _

from support import reading, signing_in
from support.models import Answer, Product, Question, User
from support.models.validators import LARGEST_BODY, validate_characters


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
        signing_in.spend(get_adapter().request, (signing_in.CODES_TO_ADDRESS, email.lower()))
        if self._user and not EmailAddress.objects.filter(
            user=self._user, email=email, verified=True
        ):
            self._user = None
        return email


class PasswordResetForm(ResetPasswordForm):
    """Who wants a new password: so many mails go to one address, whoever asks for them."""

    def clean_email(self) -> str:
        email: str = super().clean_email()
        signing_in.spend(get_adapter().request, (signing_in.RESETS_TO_ADDRESS, email.lower()))
        return email


class CodeForm(signing_in.CodesCounted, codes.AuthenticateForm):
    """A code of a second factor, to sign in."""


class CodeAgainForm(signing_in.CodesCounted, codes.ReauthenticateForm):
    """A code of a second factor, of somebody who is signed in."""


class CredentialField(forms.JSONField):
    """What a browser says of a key, or whoever sends this form: numbers of thousands of digits and
    lists without end are no JSON either."""

    def __init__(self) -> None:
        super().__init__(widget=forms.HiddenInput)

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (ValueError, RecursionError):
            raise forms.ValidationError(self.error_messages["invalid"], "invalid") from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Nothing is shown again: each credential is good for once."""
        return None


class AddKeyForm(webauthn.AddWebAuthnForm):
    credential = CredentialField()


class KeyForm(webauthn.AuthenticateWebAuthnForm):
    credential = CredentialField()


class KeyLoginForm(webauthn.LoginWebAuthnForm):
    credential = CredentialField()


class KeyAgainForm(webauthn.ReauthenticateWebAuthnForm):
    credential = CredentialField()


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


class PreferencesForm(forms.ModelForm):
    """What a person sets for themself. The page shows its fields in the order of `fields`."""

    class Meta:
        model = User
        fields = ["display_name", "language", "time_zone", "theme", "mail_pace", "uses_keys"]
        labels = {
            "display_name": _("Your name, as others see it"),
            "language": _("Language"),
            "time_zone": _("Time zone"),
            "theme": _("Light or dark"),
            "mail_pace": _("Mail about the questions that you follow"),
            "uses_keys": _("Use keys on the review desk"),
        }
        help_texts = {"display_name": _("Left empty, others see your user name.")}
        widgets = {
            "display_name": forms.TextInput(attrs={"dir": "auto", "autocomplete": "name"}),
            "theme": forms.RadioSelect,
            "mail_pace": forms.RadioSelect,
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.is_guest:
            self.fields["display_name"].help_text = _("Left empty, others see “Guest”.")
        self.fields["display_name"].validators.append(validate_characters)
        self.fields["language"] = forms.ChoiceField(
            label=_("Language"), choices=_languages, required=False
        )
        self.fields["time_zone"] = forms.ChoiceField(
            label=_("Time zone"), choices=_zones, required=False
        )
        self.fields["theme"].widget.choices = User.Theme.choices
        self.fields["mail_pace"].widget.choices = User.MailPace.choices
        if not self.instance.has_perm("dedup.review_flag"):
            del self.fields["uses_keys"]


def _languages() -> list[tuple[str, Any]]:
    """Each by the name that those call it who speak it."""
    own = [(code, get_language_info(code)["name_local"]) for code, _name in settings.LANGUAGES]
    return [("", _("As the browser asks")), *own]


def _zones() -> list[tuple[Any, Any]]:
    """By part of the world."""
    parts = groupby(reading.zones(), key=lambda name: name.partition("/")[0])
    named = [
        (part, [(name, name.partition("/")[2].replace("_", " ") or name) for name in names])
        for part, names in parts
    ]
    return [("", _("As the browser says")), *named]


class EraseForm(forms.Form):
    """The name is typed: a slip erases nobody."""

    username = forms.CharField(
        label=_("Your user name"), max_length=150, widget=forms.TextInput({"autocomplete": "off"})
    )

    def __init__(self, *args: Any, person: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.person = person
        self.fields["username"].help_text = _("To go on, type your user name: %(name)s") % {
            "name": escape(person.username)
        }

    def clean_username(self) -> str:
        typed: str = self.cleaned_data["username"]
        if typed != self.person.username:
            raise forms.ValidationError(_("This is not your user name."), "other")
        return typed
