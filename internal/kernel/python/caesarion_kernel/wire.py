"""Frames on the socket to the agent.

A frame is u32be length of the JSON, u32be number of buffers, the JSON, then for each buffer u32be
length and bytes. Any thread may send, the garbage collector's finalisers and signal handlers in the
middle of another send included, and a frame is never torn: there is one queue, and whoever holds
the lock empties it. A thread returns from send when its frame is written (or when the thread is already
inside send further down its stack: then that send writes it), so memory is bounded by the socket.
"""

from _thread import RLock, allocate_lock, get_ident
from collections import deque
from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import close
from select import POLLIN, poll
from socket import MSG_DONTWAIT, socket
from struct import Struct

from . import interrupts
from .encode import decode

_head = Struct(">II")
_length = Struct(">I")
# Away from the low numbers that user code passes to os.close and os.dup2 by mistake.
_FIRST_FD = 100
_READ = 1 << 16
# Frames below this size are joined to one write.
_JOIN = 1 << 14


class Frame(dict):
    """A received message: channel, header, parent_header, metadata, content, buffers."""

    __slots__ = ()


class Wire:
    def __init__(self, fd):
        try:
            moved = fcntl(fd, F_DUPFD_CLOEXEC, _FIRST_FD)
            close(fd)
        except OSError:  # the limit of open files is lower than that
            moved = fd
        self._socket = socket(fileno=moved)
        self._socket.set_inheritable(False)
        self._recv = self._socket.recv
        self._sendall = self._socket.sendall
        self._queue = deque()
        self._lock = allocate_lock()
        self._owner = 0
        self._buffer = b""
        self._read_lock = RLock()  # a thread may read while it waits for the answer to input()
        self._poll = poll()
        self._poll.register(moved, POLLIN)
        self.broken = False
        # Frames that were read while something else was looked for, oldest first.
        self.inbox = deque()

    def fileno(self):
        return self._socket.fileno()

    # Sending

    def send(self, text, buffers=None):
        """Sends one message; text is its JSON as bytes."""
        if buffers:
            parts = [_head.pack(len(text), len(buffers)), text]
            for buffer in buffers:
                view = memoryview(buffer).cast("B")
                parts.append(_length.pack(len(view)))
                parts.append(view)
            self.send_frames(b"".join(parts))
        else:
            self.send_frames(_head.pack(len(text), 0) + text)

    @staticmethod
    def frame(text):
        """The bytes of a frame without buffers, for send_frames."""
        return _head.pack(len(text), 0) + text

    def hold(self, data):
        """Sends bytes that are whole frames together with whatever is sent next.

        Only for what is followed by something soon, or that nobody waits for.
        """
        self._queue.append(data)

    def send_frames(self, data):
        """Sends bytes that are whole frames."""
        me = get_ident()
        main = me == interrupts.main_thread
        if main:
            interrupts.critical += 1
        try:
            self._queue.append(data)
            if self._owner == me:
                return
            with self._lock:
                self._owner = me
                try:
                    while self._queue:
                        data = self._queue.popleft()
                        if self._queue and len(data) < _JOIN:
                            # Each write wakes the agent, which costs more than a copy.
                            parts = [data]
                            while self._queue and len(self._queue[0]) < _JOIN:
                                parts.append(self._queue.popleft())
                            data = b"".join(parts)
                        if not self.broken:
                            self._sendall(data)
                except OSError:
                    # The agent is gone, or user code closed the socket: the main loop ends the
                    # process at its next receive. Until then output has nowhere to go.
                    self.broken = True
                    self._queue.clear()
                finally:
                    self._owner = 0
        finally:
            if main:
                interrupts.critical -= 1
                if interrupts.pending and not interrupts.critical:
                    interrupts.fire()

    # Receiving

    def receive(self):
        """Waits for the next frame that is not in the inbox; None at the end of the stream."""
        with self._read_lock:
            while True:
                frame = self._take()
                if frame is not None:
                    return frame
                if not self._fill(0):
                    return None

    def drain(self):
        """Moves every frame that has arrived to the inbox, without waiting. False at the end of the stream."""
        with self._read_lock:
            while True:
                frame = self._take()
                if frame is not None:
                    self.inbox.append(frame)
                    continue
                try:
                    if not self._fill(MSG_DONTWAIT):
                        return False
                except BlockingIOError:
                    return True

    def wait(self, timeout_ms):
        """Waits until there is something to read."""
        return bool(self._buffer) or bool(self._poll.poll(timeout_ms))

    def _fill(self, flags):
        try:
            data = self._recv(_READ, flags)
        except BlockingIOError:
            raise
        except OSError:
            return False
        if not data:
            return False
        self._buffer = self._buffer + data if self._buffer else data
        return True

    def _need(self, size):
        """Bytes that are still missing until the buffer holds size: read in one go."""
        missing = size - len(self._buffer)
        if missing <= 0:
            return True
        parts = [self._buffer]
        while missing > 0:
            try:
                data = self._recv(min(missing, 1 << 20))
            except OSError:
                return False
            if not data:
                return False
            parts.append(data)
            missing -= len(data)
        self._buffer = b"".join(parts)
        return True

    def _take(self):
        """The frame at the beginning of the buffer. Once a frame has begun, its rest is waited for."""
        if len(self._buffer) < 8:
            return None
        size, count = _head.unpack_from(self._buffer)
        if not self._need(8 + size):
            return None
        end = 8 + size
        frame = Frame(decode(self._buffer[8:end].decode("utf-8")))
        buffers = []
        for _ in range(count):
            if not self._need(end + 4):
                return None
            (size,) = _length.unpack_from(self._buffer, end)
            if not self._need(end + 4 + size):
                return None
            buffers.append(self._buffer[end + 4 : end + 4 + size])
            end += 4 + size
        frame["buffers"] = buffers
        self._buffer = self._buffer[end:]
        return frame

    # Forks

    def forget(self):
        """Closes the socket in a forked child: its parent's messages are none of its business."""
        self.broken = True
        self._queue.clear()
        self._lock = allocate_lock()
        self._owner = 0
        try:
            close(self._socket.detach())
        except OSError:
            pass
