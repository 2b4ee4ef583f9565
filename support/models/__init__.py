"""The rows of the site. Each row changes itself; what changes several is a function beside."""

from support.models.audit import AuditEntry, AuditHead, AuditLink
from support.models.guest import GuestRequest
from support.models.mail import InboundMail, MailStop
from support.models.merge import Merge
from support.models.notification import Notification
from support.models.outbox import OutboxEntry
from support.models.participation import AnswerVote, Subscription, Vote
from support.models.question import Acceptance, Answer, Product, Question
from support.models.quota import Usage
from support.models.token import ApiToken, IdempotencyRecord
from support.models.user import MergeGrant, User

__all__ = [
    "Acceptance",
    "Answer",
    "AnswerVote",
    "ApiToken",
    "AuditEntry",
    "AuditHead",
    "AuditLink",
    "GuestRequest",
    "IdempotencyRecord",
    "InboundMail",
    "MailStop",
    "Merge",
    "MergeGrant",
    "Notification",
    "OutboxEntry",
    "Product",
    "Question",
    "Subscription",
    "Usage",
    "User",
    "Vote",
]
