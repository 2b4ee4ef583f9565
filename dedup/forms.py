"""What pages ask an admin before long work begins."""

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from dedup import starting


class TrainingForm(forms.Form):
    """How a release is to be trained from the portal's verdicts."""

    base = forms.ChoiceField(
        label=_("Begin from"),
        choices=[
            ("current", _("the release in service")),
            ("base", _("the bi-encoder, afresh")),
        ],
        help_text=_("Afresh takes more verdicts, and forgets what earlier ones taught."),
    )
    precision = forms.FloatField(
        label=_("Wanted precision of what is flagged, in percent"),
        required=False,
        min_value=1,
        max_value=99,
        help_text=_("Such as 50; empty: as the release in service."),
        widget=forms.NumberInput(attrs={"step": "1"}),
    )
    epochs = forms.IntegerField(
        label=_("Times over the verdicts"),
        help_text=_("It stops earlier where further times bring nothing."),
    )
    minutes = forms.FloatField(
        label=_("Minutes at most"), widget=forms.NumberInput(attrs={"step": "1", "min": "1"})
    )
    seed = forms.IntegerField(
        label=_("Seed"), help_text=_("The same seed and verdicts make the same release.")
    )
    name = forms.CharField(
        label=_("Name of the release"), required=False, max_length=80,
        help_text=_("Empty: of the one in service, the day and a number."),
        widget=forms.TextInput(attrs={"dir": "ltr", "autocomplete": "off"}),
    )  # fmt: skip

    def clean_precision(self) -> float | None:
        given: float | None = self.cleaned_data["precision"]
        return None if given is None else given / 100


class AdoptingForm(forms.Form):
    """Which cross-encoder that others trained is to become a release."""

    checkpoint = forms.CharField(
        label=_("Folder or name"),
        max_length=200,
        help_text=_("A folder among the checkpoints, or a name on the hub such as owner/name."),
        widget=forms.TextInput(attrs={"dir": "ltr", "autocomplete": "off", "list": "checkpoints"}),
    )
    languages = forms.CharField(
        label=_("Languages that it reads"), initial="en", max_length=60,
        help_text=_("Codes with spaces between, such as: en de"),
        widget=forms.TextInput(attrs={"dir": "ltr", "autocomplete": "off"}),
    )  # fmt: skip
    name = forms.CharField(
        label=_("Name of the release"), required=False, max_length=80,
        help_text=_("Empty: the checkpoint's own."),
        widget=forms.TextInput(attrs={"dir": "ltr", "autocomplete": "off"}),
    )  # fmt: skip

    def clean_languages(self) -> list[str]:
        given: str = self.cleaned_data["languages"]
        return given.lower().split()


def add_refusal(form: forms.Form, refused: starting.StartRefused) -> None:
    """Say at its field, or above all of them, why something cannot be begun, in the reader's
    words."""
    details: dict[str, Any] = refused.details
    form.add_error(refused.field or None, gettext(refused.said) % details)
