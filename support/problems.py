"""What a program reads when something goes wrong: problem details (RFC 9457)."""

import uuid
from http import HTTPStatus
from typing import Any

from structlog.contextvars import get_contextvars

MEDIA_TYPE = "application/problem+json"


def details(*, status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    """Return the body of an error; its request id is the one in the log."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": get_contextvars().get("request_id") or str(uuid.uuid4()),
        **more,
    }
