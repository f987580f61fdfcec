"""sys.stdout and sys.stderr as stream messages.

A write appends to one queue (shared by both streams, so that their order survives) and the queue is
sent when

    a line ends and nothing was sent for TICK: somebody may be watching,
    TICK has passed since the first unsent write: a helper thread does it,
    LIMIT characters have gathered: the writer does it, and so feels the agent's back-pressure,
    somebody flushes: the user, or the kernel before a display, a fork or a reply.

A million prints thus cost a few hundred messages, and memory stays bounded.
"""

import os as _os
from _thread import RLock, allocate_lock, start_new_thread
from collections import deque
from io import BufferedIOBase, TextIOBase, UnsupportedOperation
from time import monotonic, sleep

from . import interrupts
from .encode import quote, to_bytes
from .requests import _context, current
from _thread import get_ident

# Seconds. What is written is seen within 5 ms: this and the time that a thread takes to wake.
TICK = 0.003
# Characters, at most 256 KiB of UTF-8 and one message.
LIMIT = 1 << 16
# Ticks without output after which the helper parks itself.
_PARK = 8

_write_fd = _os.write


class Output:
    """Gathers what the streams write."""

    def __init__(self, wire, envelope):
        self._wire = wire
        self._envelope = envelope
        self._queue = deque()  # (stream name, request, text)
        self._size = 0  # characters in the queue, roughly: threads race, flush resets it
        self._sent = 0.0
        self._lock = RLock()
        self._wake = allocate_lock()
        self._wake.acquire()
        self._armed = False
        self._helper = False
        self.forked = False

    def add(self, name, text):
        request = _context.get(None)
        if request is None:
            request = current()
        self._queue.append((name, request, text))
        self._size += len(text)
        if self._size >= LIMIT:
            self.flush()
        elif text[-1] == "\n" and monotonic() - self._sent >= TICK:
            self.flush()
        elif not self._armed:
            self._arm()

    def flush(self):
        if not self._queue:
            return
        main = get_ident() == interrupts.main_thread
        if main:
            interrupts.critical += 1
        try:
            with self._lock:
                self._send_all()
        finally:
            if main:
                interrupts.critical -= 1
                if interrupts.pending and not interrupts.critical:
                    interrupts.fire()

    def _send_all(self):
        queue, popleft = self._queue, self._queue.popleft
        while queue:
            name, request, text = popleft()
            parts, size = [text], len(text)
            while queue and size < LIMIT:
                head = queue[0]
                if head[0] is not name or head[1] is not request:
                    break
                text = popleft()[2]
                parts.append(text)
                size += len(text)
            if size <= LIMIT:
                self._send(name, request, "".join(parts))
                continue
            text = "".join(parts)
            parts = None
            for start in range(0, size, LIMIT):
                self._send(name, request, text[start : start + LIMIT])
        self._size = 0
        self._sent = monotonic()

    def _send(self, name, request, text):
        content = f'{{"name":"{name}","text":{quote(text)}}}'
        message = self._envelope.message("iopub", "stream", request.parent, content)
        self._wire.send(to_bytes(message))

    def _arm(self):
        self._armed = True
        try:
            if not self._helper:
                self._helper = True
                start_new_thread(self._help, ())
            self._wake.release()
        except RuntimeError:
            # No more threads allowed, or another thread was faster: do it here.
            self.flush()

    def _help(self):
        idle = 0
        while True:
            self._wake.acquire()
            idle = 0
            while idle < _PARK:
                sleep(TICK)
                if self._queue:
                    idle = 0
                    self.flush()
                else:
                    idle += 1
            self._armed = False
            if self._queue:  # written between the last look and the line above
                self._armed = True
                self.flush()
                try:
                    self._wake.release()
                except RuntimeError:
                    pass

    def forget(self):
        """After a fork, in the child: the parent sends what is in the queue, the child writes to
        its file descriptors."""
        self.forked = True
        self._queue.clear()
        self._lock = RLock()


class Stream(TextIOBase):
    """sys.stdout or sys.stderr."""

    errors = "backslashreplace"
    newlines = None
    line_buffering = False
    write_through = False

    def __init__(self, output, name, fd):
        self._output = output
        self._add = output.add
        self.name = f"<{name}>"
        self._name = name
        self._fd = fd
        self._shut = False
        self._binary = None

    encoding = "UTF-8"
    mode = "w"

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text)}")
        if self._shut:
            raise ValueError("I/O operation on closed file.")
        if text:
            if self._output.forked:
                self._write_raw(to_bytes(str(text)))
            else:
                self._add(self._name, text if type(text) is str else str(text))
        return len(text)

    def _write_raw(self, data):
        while data:
            data = data[_write_fd(self._fd, data) :]

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        if not self._output.forked:
            self._output.flush()

    def writable(self):
        return True

    def readable(self):
        return False

    def isatty(self):
        return False

    def fileno(self):
        # What is written there passes what is still in the queue otherwise.
        self.flush()
        return self._fd

    def reconfigure(self, **_):
        """There is nothing to configure: text goes out as UTF-8."""

    def detach(self):
        raise UnsupportedOperation("detach")

    @property
    def buffer(self):
        if self._binary is None:
            self._binary = _Binary(self)
        return self._binary

    def close(self):
        """Closes the stream for the rest of the cell; the kernel opens it again for the next."""
        if not self._shut:
            self.flush()
            self._shut = True

    def reopen(self):
        self._shut = False

    @property
    def closed(self):
        return self._shut

    def __repr__(self):
        return f"<caesarion_kernel stream {self.name}>"


class _Binary(BufferedIOBase):
    """sys.stdout.buffer: bytes that are hopefully UTF-8."""

    def __init__(self, stream):
        from codecs import getincrementaldecoder

        self._stream = stream
        self._decoder = getincrementaldecoder("utf-8")("replace")

    @property
    def raw(self):
        return self

    @property
    def name(self):
        return self._stream.name

    def writable(self):
        return True

    def fileno(self):
        return self._stream.fileno()

    def write(self, data):
        view = memoryview(data).cast("B")
        self._stream.write(self._decoder.decode(view.tobytes()))
        return len(view)

    def flush(self):
        self._stream.flush()

    def close(self):
        self._stream.close()

    @property
    def closed(self):
        return self._stream.closed
