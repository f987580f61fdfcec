"""SIGINT: a KeyboardInterrupt in the cell that is meant, never in another, never in our own frames.

The agent writes an interrupt_request into the socket and then signals. While a cell runs, the
handler raises. Between cells it only notes that the bell rang: if the next request turns out to
stand before an interrupt_request in the socket, then that request was meant and is interrupted as it
begins; if not, the interrupt came too late for the one before and is dropped.
"""

import signal as _signal
from _thread import get_ident
from signal import SIGINT, getsignal

_set_signal = _signal.signal

# All of this is read and written by the main thread only (signal handlers run there).
main_thread = get_ident()
active = False  # a cell runs
critical = 0  # depth of sections that an exception would damage
pending = False  # the bell rang in a critical section of a cell
rang = False  # the bell rang between cells
# Set by loop while the event loop waits for a cell's coroutine; returns True if it deals with it.
waiting = None


def handler(signum, frame):
    global pending, rang
    if not active:
        rang = True
        if waiting is not None:
            waiting()
    elif critical:
        pending = True
    elif waiting is None or not waiting():
        raise KeyboardInterrupt


def fire():
    """Raises what a critical section put off."""
    global pending
    pending = False
    if active and (waiting is None or not waiting()):
        raise KeyboardInterrupt


def hide(tb):
    """Cuts this module off the end of a traceback: users look for the line that was interrupted."""
    while tb is not None:
        following = tb.tb_next
        if following is not None and following.tb_frame.f_globals is globals():
            tb.tb_next = following = None
        tb = following


def install():
    """Makes SIGINT ours again; user code may have changed it."""
    if getsignal(SIGINT) is not handler:
        _set_signal(SIGINT, handler)


def after_fork():
    """In a child there is nobody to ask: Python's own behaviour."""
    global main_thread, critical, pending, waiting
    main_thread, critical, pending, waiting = get_ident(), 0, False, None
    if getsignal(SIGINT) is handler:
        _set_signal(SIGINT, _signal.default_int_handler)
