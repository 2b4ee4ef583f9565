"""Log lines: each with its request's id; ids and kinds of errors, never what people wrote."""

import re
import traceback
from typing import Any, TextIO

import structlog
from structlog.processors import TimeStamper
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter

# The parts of an address that a mail carries: signed values, and keys that set a new password.
TOKENS = re.compile(r"(?<=/)[\w-]+:[\w-]+:[\w-]{20,}|(?<=/reset/key/)[\w-]+")


def hide_tokens(_logger: Any, _method: str, event: Any) -> Any:
    """Take the tokens out of addresses: who reads the log could come in with them."""
    for key in ("event", "request"):
        if isinstance(event.get(key), str):
            event[key] = TOKENS.sub("…", event[key])
    return event


_SHARED: list[Any] = [
    hide_tokens,
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    TimeStamper(fmt="iso", utc=True),
]


def write_traceback(out: TextIO, exc_info: Any) -> None:
    """Write an error and what led to it: frames without their values, messages without details.

    Postgres tells in an error's further lines which row it refused, with all its texts.
    """
    error = exc_info[1]
    chain = [error]
    while earlier := error.__cause__ or (not error.__suppress_context__ and error.__context__):
        chain.append(error := earlier)
    for error in reversed(chain):
        out.write("\n" + "".join(traceback.format_tb(error.__traceback__)))
        out.write(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def configure(level: str) -> dict[str, Any]:
    """Let structlog and logging write the same lines; return what Django wants for LOGGING."""
    structlog.configure(
        processors=[*_SHARED, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        logger_factory=LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=write_traceback)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": ProcessorFormatter,
                "processors": [ProcessorFormatter.remove_processors_meta, renderer],
                "foreign_pre_chain": _SHARED,
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {"django": {"handlers": [], "propagate": True}},
    }
