"""Which request an output belongs to.

Code of a cell belongs to the request that runs it; an asyncio task to the request that
created it (context variables are copied then); a thread to the request that started it.
"""

from _thread import get_ident
from contextvars import ContextVar

from .encode import dumps


class Request:
    """One request; parent is its header as JSON, made once and put into every answer."""

    __slots__ = ("content", "frame", "parent")

    def __init__(self, frame):
        self.frame = frame
        self.content = frame["content"]
        self.parent = dumps(frame["header"])


NONE = Request({"header": {}, "parent_header": {}, "metadata": {}, "content": {}, "buffers": []})

_context = ContextVar("caesarion_request")
_threads = {}
_latest = NONE
_main = get_ident()


def set_current(request):
    global _latest
    _latest = request
    _context.set(request)


def current():
    """The request that the calling code works for."""
    request = _context.get(None)
    if request is not None:
        return request
    return _threads.get(get_ident(), _latest)


def enter(request):
    """Makes request the calling context's; gives what leave needs."""
    return _context.set(request)


def leave(token):
    _context.reset(token)


def latest():
    return _latest


def watch_threads():
    """Lets threads remember who started them."""
    from threading import Thread

    start = Thread.start
    bootstrap = Thread._bootstrap_inner

    def _start(self):
        self._caesarion_request = current()
        start(self)

    def _bootstrap(self):
        me = get_ident()
        request = getattr(self, "_caesarion_request", None)
        if request is not None:
            _threads[me] = request
        try:
            bootstrap(self)
        finally:
            _threads.pop(me, None)

    _start.__name__, _start.__qualname__, _start.__doc__ = "start", "Thread.start", start.__doc__
    Thread.start = _start
    Thread._bootstrap_inner = _bootstrap
