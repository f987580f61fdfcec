"""What is shown of values in tables: numbers, booleans, null or short text. Nothing is imported for it."""

from contextlib import contextmanager
from math import isfinite
from signal import ITIMER_REAL, SIGALRM, getitimer, getsignal, setitimer, signal

TEXT = 300  # characters of one value
# JavaScript's numbers are exact up to here.
_SAFE = 1 << 53


class Refused(Exception):
    """A request that is not answered; code is its stable name."""

    def __init__(self, status, code, detail, hint=""):
        super().__init__(detail)
        self.problem = {"status": status, "code": code, "detail": detail, "hint": hint}


class _Late(BaseException):
    """The time of a request is over. No except Exception of the user's may catch it."""


@contextmanager
def deadline(seconds):
    """Ends Python code that takes too long: between two cells there is nobody to interrupt it."""
    if getitimer(ITIMER_REAL)[0]:  # the user's own alarm
        yield
        return

    def ring(number, frame):
        raise _Late

    try:
        before = getsignal(SIGALRM)
        signal(SIGALRM, ring)
    except (ValueError, TypeError):  # not in the main thread
        yield
        return
    try:
        setitimer(ITIMER_REAL, seconds)
        try:
            yield
        finally:
            setitimer(ITIMER_REAL, 0)
    except _Late:
        raise Refused(
            504, "table-timeout", "making this page takes too long", "look at a part of it with code"
        ) from None
    finally:
        signal(SIGALRM, before)


def short(text, room=TEXT):
    return text if len(text) <= room else text[: room - 1] + "…"


def value(value):
    if value is None or isinstance(value, bool):
        return value
    if hasattr(value, "item"):
        try:
            value = value.item()  # numpy's scalars
        except Exception:
            pass
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if -_SAFE <= value <= _SAFE:
            return int(value)
        return f"0x{value:x}"[:TEXT] if value.bit_length() > 2000 else str(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else None if value != value else str(value)
    if isinstance(value, (str, bytes)):
        value = value[:TEXT + 1]
    return short(str(value))
