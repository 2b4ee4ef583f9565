from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class User(AbstractUser):
    """A person. What they may do comes from their group: customer, agent or admin.

    Who has left keeps the row and its id alone, so that what others wrote keeps its threads.
    """

    class Theme(models.TextChoices):
        AUTO = "auto", _("As the device does")
        LIGHT = "light", _("Light")
        DARK = "dark", _("Dark")

    class MailPace(models.TextChoices):
        AT_ONCE = "at_once", _("A mail for each piece of news, at once")
        DAILY = "daily", _("One mail a day with all that is new")
        NONE = "none", _("No mail")

    display_name = models.CharField(max_length=100, blank=True)
    mail_pace = models.CharField(
        max_length=7,
        choices=MailPace.choices,
        default=MailPace.AT_ONCE,
        db_default=MailPace.AT_ONCE,
    )
    is_guest = models.BooleanField(default=False, db_default=False)  # has no password, only mail
    language = models.CharField(max_length=12, blank=True, default="", db_default="")
    time_zone = models.CharField(max_length=64, blank=True, default="", db_default="")
    theme = models.CharField(
        max_length=5, choices=Theme.choices, default=Theme.AUTO, db_default=Theme.AUTO
    )
    uses_keys = models.BooleanField(default=True, db_default=True)  # of the review desk
    erased_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(
                Lower("email"), condition=~models.Q(email=""), name="user_email_once"
            ),
            models.CheckConstraint(
                condition=Q(is_guest=False) | Q(password__startswith=UNUSABLE_PASSWORD_PREFIX),
                name="user_guest_has_no_password",
            ),
            models.CheckConstraint(
                condition=Q(theme__in=["auto", "light", "dark"]), name="user_theme_is_known"
            ),
            models.CheckConstraint(
                condition=Q(erased_at__isnull=True)
                | Q(
                    username__startswith="erased-",
                    email="",
                    first_name="",
                    last_name="",
                    display_name="",
                    language="",
                    time_zone="",
                    last_login__isnull=True,
                    is_active=False,
                    is_staff=False,
                    is_superuser=False,
                    mail_pace="none",
                ),
                name="user_erased_has_nothing_left",
            ),
        ]

    def __str__(self) -> str:
        if self.erased_at:
            return gettext("somebody who left")
        return self.display_name or (gettext("Guest") if self.is_guest else self.username)

    def set_password(self, raw_password: str | None) -> None:
        """Who sets a password is no guest any more, wherever they set it."""
        super().set_password(raw_password)
        self.is_guest = self.is_guest and raw_password is None

    @property
    def is_agent(self) -> bool:
        """Whether this person works here: sees private questions and the review queue."""
        return self.has_perm("support.view_private_question")

    def may_merge(self, *products: int) -> bool:
        """Whether this person may merge and unmerge questions of all these products (ids)."""
        if self.has_perm("support.merge_question"):
            return True
        granted = set(self.merge_grants.values_list("product_id", flat=True))
        return self.is_active and bool(products) and set(products) <= granted


class MergeGrant(models.Model):
    """The right to merge in one product, given to one agent."""

    agent = models.ForeignKey(User, models.CASCADE, related_name="merge_grants")
    product = models.ForeignKey("support.Product", models.CASCADE, related_name="merge_grants")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "product"], name="mergegrant_once")]

    def __str__(self) -> str:
        return f"{self.agent_id} in {self.product_id}"
