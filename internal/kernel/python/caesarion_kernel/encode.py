"""Encodes messages as JSON.

What users display comes from anywhere: lone surrogates, NaN, numpy scalars, bytes. The first try is
the plain C encoder; only when it refuses is the value cleaned, by the rules of jupyter_client.
"""

from base64 import b64encode
from json import JSONDecoder
from json.encoder import JSONEncoder, encode_basestring as quote
from math import isfinite
from numbers import Integral, Real
from os import getpid, urandom
from time import gmtime, strftime, time

decode = JSONDecoder().decode


def _default(obj):
    """What ipykernel's json_default does, without importing datetime or numpy for it."""
    isoformat = getattr(obj, "isoformat", None)
    if isoformat is not None:
        return isoformat()
    if isinstance(obj, (bytes, bytearray, memoryview)):
        return b64encode(obj).decode("ascii")
    if isinstance(obj, Integral):
        return int(obj)
    if isinstance(obj, Real):
        value = float(obj)
        return value if isfinite(value) else repr(value)
    if hasattr(obj, "__iter__"):
        return list(obj)
    raise TypeError(f"Object of type {type(obj).__name__} is not JSON serializable")


_strict = JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default
).encode


def _clean(obj):
    if obj is None or isinstance(obj, (bool, str)):
        return obj
    if isinstance(obj, Integral):
        return int(obj)
    if isinstance(obj, Real):
        value = float(obj)
        return value if isfinite(value) else repr(value)
    if isinstance(obj, dict):
        return {k if isinstance(k, str) else str(k): _clean(v) for k, v in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [_clean(v) for v in obj]
    return _clean(_default(obj))


def dumps(obj):
    """JSON text of obj. Raises TypeError or ValueError for what has no JSON form at all."""
    try:
        return _strict(obj)
    except (ValueError, TypeError):
        return _strict(_clean(obj))


def to_bytes(text):
    """UTF-8 of text. A lone surrogate becomes U+FFFD, a pair of them its character."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


class Envelope:
    """Makes the JSON part of frames for one kernel session."""

    def __init__(self):
        self.session = urandom(16).hex()
        # A forked child sends nothing, so the process id stays what it is.
        self._pid = getpid()
        self._count = 0
        self._second = 0
        self._date = ""

    def header(self, msg_type):
        # A kernel sends thousands of messages a second: the date up to the second is kept.
        now = time()
        second = int(now)
        if second != self._second:
            self._date = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
            self._second = second
        self._count += 1
        return (
            f'{{"msg_id":"{self.session}_{self._pid}_{self._count}","msg_type":"{msg_type}",'
            f'"session":"{self.session}","username":"kernel",'
            f'"date":"{self._date}.{int((now - second) * 1e6):06d}Z","version":"5.3"}}'
        )

    def message(self, channel, msg_type, parent, content, metadata="{}"):
        """The JSON text of a message; parent, content and metadata are JSON texts."""
        return (
            f'{{"channel":"{channel}","header":{self.header(msg_type)},"parent_header":{parent},'
            f'"metadata":{metadata},"content":{content}}}'
        )


__all__ = ["Envelope", "decode", "dumps", "quote", "to_bytes"]
