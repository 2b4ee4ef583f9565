"""Django's way to Postgres, for pages that wait for it no longer than their readers do.

A server that stands still keeps its connections: without a limit each request that asks it holds a
thread until it goes on, and soon no thread is left to say so.
"""

from collections.abc import Callable
from typing import Any, cast

from django.db import connection
from django.http import HttpRequest, HttpResponse

PATIENCE_SECONDS = 5.0  # of a request, with each statement


def with_patience(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """A statement that takes too long ends its connection, which is an OperationalError."""

    def middleware(request: HttpRequest) -> HttpResponse:
        ours = cast(Any, connection)  # the wrapper in support.database.base
        ours.patience = PATIENCE_SECONDS
        try:
            return get_response(request)
        finally:
            ours.patience = None

    return middleware
