"""The site, with web processes that some questions kill: for drills alone.

`gunicorn tests.drills.faulty_web`. When it dies is told by a word in the title.
"""

import os
import signal
import threading
import zlib
from typing import Any

from support.wsgi import application

__all__ = ["application"]

from support import outbox

BEFORE = "before7"  # dies while all is written and nothing is committed
AFTER = "after7"  # dies between the commit and the bell

_asked = threading.local()
_put, _ring = outbox.put, outbox.ring


def put(question: Any, **given: Any) -> None:
    _asked.title = question.title
    _put(question, **given)
    _die_at(BEFORE)


def ring() -> bool:
    _die_at(AFTER)
    return _ring()


def _die_at(mark: str) -> None:
    """Once each, however often it is asked: whoever repeats is to get an answer."""
    title = getattr(_asked, "title", "")
    if title.endswith(mark) and _is_first(title):
        os.kill(os.getpid(), signal.SIGKILL)


def _is_first(title: str) -> bool:
    note = f"{os.environ['DRILL_NOTES']}/{zlib.crc32(title.encode()):x}"
    try:
        os.close(os.open(note, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


outbox.put, outbox.ring = put, ring
