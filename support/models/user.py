from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext as _


class User(AbstractUser):
    """A person. What they may do comes from their group: customer, agent or admin."""

    display_name = models.CharField(max_length=100, blank=True)
    wants_mail = models.BooleanField(default=True)
    is_guest = models.BooleanField(default=False, db_default=False)  # has no password, only mail

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(
                Lower("email"), condition=~models.Q(email=""), name="user_email_once"
            ),
            models.CheckConstraint(
                condition=models.Q(is_guest=False)
                | models.Q(password__startswith=UNUSABLE_PASSWORD_PREFIX),
                name="user_guest_has_no_password",
            ),
        ]

    def __str__(self) -> str:
        return self.display_name or (_("Guest") if self.is_guest else self.username)

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
