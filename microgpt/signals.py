"""Signals that ask to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Yield a list to which the first SIGINT, SIGTERM or SIGHUP adds its number, instead of acting. The second acts as ever.

    A signal that is ignored stays so: a shell starts background jobs that way. Outside the main thread nothing changes, since
    Python runs handlers there only.
    """
    noted: list[int] = []
    handlers: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        restore()
        noted.append(number)

    def restore() -> None:
        while handlers:
            signal.signal(*handlers.popitem())

    try:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP, which tells that the terminal is gone
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    handlers[number] = signal.getsignal(number)
            for number in list(handlers):
                signal.signal(number, note)
        yield noted
    finally:
        restore()
