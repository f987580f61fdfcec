"""The kernel: takes requests off the wire one by one, executes, replies."""

import builtins
import logging
import os
import sys
from _thread import get_ident
from collections import deque
from inspect import signature
from time import sleep

from IPython.core.error import StdinNotImplementedError

from . import comms, interrupts, replies, requests
from .encode import dumps, to_bytes

_exit = os._exit
_log = logging.getLogger("caesarion_kernel")
# Bytes. The agent takes the kernel for broken when a message is larger (kernel.Limits in Go).
_MAX_JSON = 63 << 20
_MAX_TOTAL = 250 << 20
# Characters of an exception's message and of one line of a traceback; the middle of more is left out.
_MAX_ERROR = 1 << 20
_COMM_MESSAGES = ("comm_open", "comm_msg", "comm_close")


class _Session:
    """The part of jupyter_client's Session that libraries ask a kernel for."""

    def __init__(self, name):
        self.session = name
        self.username = "kernel"


def _shorten(text):
    if len(text) <= _MAX_ERROR:
        return text
    half = _MAX_ERROR // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


class Kernel:
    def __init__(self, wire, envelope, output, stdout, stderr):
        self.wire, self.envelope = wire, envelope
        self.output, self.stdout, self.stderr = output, stdout, stderr
        self.session = _Session(envelope.session)
        self.comm_manager = None
        self.flush_c = None
        self.forked = False
        self.log = _log
        self._allow_stdin = False
        self._exiting = False
        self.reading = False
        self._asking = 0
        self._answers = deque()

    def set_shell(self, shell):
        self.shell = shell
        # IPython's own run_cell: these parameters came with versions 8.3 and 9.9.
        accepted = signature(type(shell).__mro__[1].run_cell).parameters
        self._takes_id, self._takes_meta = "cell_id" in accepted, "cell_meta" in accepted

    # Sending

    def publish(self, msg_type, content, request=None, metadata="{}", buffers=None, hold=False):
        """Sends on iopub what the calling code causes; with hold, when the next message goes."""
        if self.forked:
            self._publish_in_child(msg_type, content)
            return
        if msg_type == "error":
            self._error_shown = True
            content["traceback"] = [_shorten(str(line)) for line in content["traceback"]]
            content["evalue"] = _shorten(content["evalue"])
        request = request or requests.current()
        text = to_bytes(
            self.envelope.message("iopub", msg_type, request.parent, dumps(content), metadata)
        )
        size = len(text) + sum(memoryview(b).nbytes for b in buffers or ())
        if len(text) > _MAX_JSON or size > _MAX_TOTAL:
            raise ValueError(f"{msg_type} of {size} bytes is too large to show")
        self.output.flush()
        if hold:
            self.wire.hold(self.wire.frame(text))
        else:
            self.wire.send(text, buffers)

    def _publish_in_child(self, msg_type, content):
        """A forked child has its file descriptors and nothing else."""
        if msg_type == "error":
            self.stderr.write("\n".join(content["traceback"]) + "\n")
        elif msg_type in ("display_data", "execute_result"):
            self.stdout.write(str(content["data"].get("text/plain", "")) + "\n")

    def _frame(self, channel, msg_type, request, content, metadata="{}"):
        message = self.envelope.message(channel, msg_type, request.parent, content, metadata)
        return self.wire.frame(to_bytes(message))

    def status_frame(self, state, request=requests.NONE, metadata="{}"):
        return self._frame(
            "iopub", "status", request, f'{{"execution_state":"{state}"}}', metadata
        )

    def _reply(self, request, content, metadata="{}"):
        """Sends the reply and the idle status after it, in one write."""
        header = request.frame["header"]
        self._answered = True
        msg_type = header["msg_type"].rsplit("_", 1)[0] + "_reply"
        self.output.flush()
        self.wire.send_frames(
            self._frame(request.frame["channel"], msg_type, request, dumps(content), metadata)
            + self.status_frame("idle", request)
        )

    # The loop

    def serve(self):
        """Handles requests until the agent closes the socket or the user exits."""
        while not self._exiting:
            frame = self._next()
            if frame is None:
                return
            self._answered = True
            try:
                self._dispatch(frame)
            except BaseException as error:
                self._failed(frame, error)
            if self.forked:
                self._leave_child()

    def _failed(self, frame, error):
        """A failure of the kernel itself, by user code that broke what it stands on: told on stderr,
        and the request gets its answer nevertheless."""
        if self.forked:
            return
        try:
            self.stderr.write(f"caesarion_kernel: {type(error).__name__}: {error}\n")
        except Exception:
            pass
        if not self._answered:
            name = type(error).__name__
            reply = {"status": "error", "ename": name, "evalue": "", "traceback": []}
            reply["execution_count"] = self.shell.execution_count - 1
            self._reply(requests.Request(frame), reply)

    def _next(self):
        wire = self.wire
        while not wire.inbox:
            if self.loop.busy() and not wire.wait(0):
                self.loop.wait()
                continue
            self.reading = True
            try:
                frame = wire.receive()
            finally:
                self.reading = False
            return frame
        return wire.inbox.popleft()

    def _dispatch(self, frame):
        header, channel = frame["header"], frame["channel"]
        msg_type = header["msg_type"]
        if channel == "stdin":
            if self._asking:  # a thread waits for it
                self._answers.append(frame)
            return  # otherwise the answer to an input() that nobody waits for any more
        if self.is_bell(frame):
            return  # too late for its execution
        request = requests.Request(frame)
        requests.set_current(request)
        self._answered = False
        if msg_type == "execute_request":
            self._execute(request)
            return
        self.wire.send_frames(self.status_frame("busy", request))
        content = None
        try:
            content = self._answer(request, msg_type)
        except Exception as error:
            self._warn(msg_type)
            content = {
                "status": "error",
                "ename": type(error).__name__,
                "evalue": str(error),
                "traceback": [],
            }
        if content is None or msg_type in _COMM_MESSAGES:
            self._answered = True
            self.output.flush()
            self.wire.send_frames(self.status_frame("idle", request))
        else:
            self._reply(request, content)

    def _answer(self, request, msg_type):
        handler = replies.HANDLERS.get(msg_type)
        if handler is not None:
            return handler(self, request.content)
        if msg_type in _COMM_MESSAGES:
            self._comm(request, msg_type)
        elif msg_type == "interrupt_request":
            # One thread: when this is read, nothing runs that could be interrupted.
            return {"status": "ok"}
        elif msg_type == "shutdown_request":
            self._exiting = True
            return {"status": "ok", "restart": request.content.get("restart", False)}
        else:
            _log.warning("Unknown message type: %r", msg_type)
        return None

    def _warn(self, msg_type):
        try:
            _log.exception("%s failed", msg_type)
        except Exception:
            pass  # logging writes to sys.stderr, which may be anything

    def _comm(self, request, msg_type):
        """Runs a comm's callback: user code, so it can be interrupted."""
        self._begin()
        try:
            try:
                comms.handle(self, msg_type, request.frame)
            finally:
                interrupts.active = False
        except KeyboardInterrupt:
            interrupts.active = False
            _log.error("KeyboardInterrupt caught in kernel.")
        finally:
            self.loop.leave_cell()

    def on_readable(self):
        """During a top-level await: comm messages may be what the cell waits for."""
        wire = self.wire
        if not wire.drain():
            # The agent is gone: the socket stays readable for ever.
            self.loop.get().remove_reader(wire.fileno())
            return
        for frame in [f for f in wire.inbox if f["header"]["msg_type"] in _COMM_MESSAGES]:
            wire.inbox.remove(frame)
            request = requests.Request(frame)
            token = requests.enter(request)
            try:
                wire.send_frames(self.status_frame("busy", request))
                comms.handle(self, frame["header"]["msg_type"], frame)
            except Exception:
                self._warn(frame["header"]["msg_type"])
            finally:
                requests.leave(token)
                self.output.flush()
                wire.send_frames(self.status_frame("idle", request))

    # Executing

    def _begin(self):
        """From here on SIGINT raises; one that came too early for this request is made up for."""
        interrupts.install()
        self.loop.enter_cell()
        interrupts.pending = False
        if interrupts.rang:
            interrupts.rang = False
            self.wire.drain()
            if self._take_bell():
                interrupts.pending = True
        interrupts.active = True

    def _take_bell(self):
        """Whether an interrupt_request of the agent waits in the inbox; removes it."""
        for frame in self.wire.inbox:
            if self.is_bell(frame):
                self.wire.inbox.remove(frame)
                return True
        return False

    @staticmethod
    def is_bell(frame):
        """Whether a frame is the agent's word that it has sent a signal (kernel.Process.Interrupt)."""
        header = frame["header"]
        return header["msg_type"] == "interrupt_request" and not header.get("session")

    def after_system(self):
        """While os.system waits, C ignores SIGINT on our behalf: only the agent's frame tells."""
        if interrupts.active and not interrupts.critical and not self.reading:
            self.wire.drain()
            if self._take_bell():
                raise KeyboardInterrupt

    def _repair(self):
        """Gives a cell its streams and input() back, whatever the one before did to them."""
        for name, stream in (("stdout", self.stdout), ("stderr", self.stderr)):
            stream.reopen()
            now = getattr(sys, name, None)
            if now is stream:
                continue
            try:
                usable = now is not None and not now.closed and callable(now.write)
            except Exception:
                usable = hasattr(now, "write") and not hasattr(now, "closed")
            if not usable:
                setattr(sys, name, stream)
        builtins.input = self.raw_input

    def _execute(self, request):
        content, shell = request.content, self.shell
        code = content["code"]
        silent = content.get("silent", False)
        store_history = content.get("store_history", not silent)
        frames = self.status_frame("busy", request)
        if not silent:
            count = shell.execution_count
            frames += self._frame(
                "iopub",
                "execute_input",
                request,
                f'{{"code":{dumps(code)},"execution_count":{count}}}',
            )
        # The agent knows that it has sent a request: this can wait for the first output.
        self.wire.hold(frames)
        self._allow_stdin = content.get("allow_stdin", False)
        self._error_shown = False
        self._repair()
        options = {}
        metadata = request.frame.get("metadata") or {}
        if self._takes_id:
            options["cell_id"] = metadata.get("cellId")
        if self._takes_meta:
            options["cell_meta"] = metadata
        result = error = None
        try:
            try:
                self._begin()
                if interrupts.pending:
                    interrupts.fire()
                result = shell.run_cell(
                    code, store_history=store_history, silent=silent, **options
                )
            finally:
                interrupts.active = False
        except BaseException as caught:
            # IPython shows what user code raises. This is a KeyboardInterrupt between two
            # lines of IPython's own, or a failure of a hook that somebody registered.
            interrupts.active = False
            if result is None:
                error = caught
                try:
                    shell.showtraceback()
                except Exception:
                    pass  # there is the reply
        self.loop.leave_cell()
        if self.forked:
            return
        if result is not None:
            error = result.error_before_exec or result.error_in_exec
        reply = self._outcome(error)
        if not self._error_shown and reply.get("ename") == "KeyboardInterrupt":
            # One in the middle of showing a traceback makes IPython print instead.
            self.publish("error", {k: reply[k] for k in ("traceback", "ename", "evalue")})
        reply["execution_count"] = shell.execution_count - 1
        reply["user_expressions"] = (
            shell.user_expressions(content.get("user_expressions") or {})
            if reply["status"] == "ok"
            else {}
        )
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        self._flush_all()
        aborted = ()
        if reply["status"] == "error" and not silent and content.get("stop_on_error", True):
            aborted = self._take_queued()
        self._reply(request, reply, f'{{"status":"{reply["status"]}"}}')
        for frame in aborted:
            request = requests.Request(frame)
            self.wire.send_frames(self.status_frame("busy", request))
            self._reply(request, {"status": "aborted"}, '{"status":"aborted"}')
        if getattr(shell, "exit_now", False):
            self._exiting = True

    def _outcome(self, error):
        shell = self.shell
        if error is None and not shell._last_traceback_during_displayhook:
            return {"status": "ok"}
        error = self.loop.translate_error(error)
        try:
            text = str(error)
        except Exception:
            text = "<exception str() failed>"
        return {
            "status": "error",
            "traceback": [_shorten(str(line)) for line in shell._last_traceback or []],
            "ename": type(error).__name__,
            "evalue": _shorten(text),
        }

    def _flush_all(self):
        """Whatever the cell wrote, by whatever way, is out before the reply."""
        for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
            stream = getattr(sys, name, None)
            if stream is self.stdout or stream is self.stderr or stream is None:
                continue
            try:
                stream.flush()
            except Exception:
                pass  # closed, or the user's own: nothing to do with the reply
        if self.flush_c is not None:
            self.flush_c()

    def _take_queued(self):
        """The execute_requests that already wait: after an error they are aborted. They are taken
        before the reply is sent, for what the client sends after it is not meant."""
        self.wire.drain()
        waiting = list(self.wire.inbox)
        taken = [frame for frame in waiting if frame["header"]["msg_type"] == "execute_request"]
        self.wire.inbox.clear()
        self.wire.inbox.extend(frame for frame in waiting if frame not in taken)
        return taken

    # input() and getpass()

    def raw_input(self, prompt=""):
        """Asks the client for a line of text."""
        if not self._allow_stdin:
            raise StdinNotImplementedError(
                "raw_input was called, but this frontend does not support input requests."
            )
        return self._ask(str(prompt), False)

    def getpass(self, prompt="", stream=None, *, echo_char=None):
        """Asks the client for a line of text that is not shown."""
        if not self._allow_stdin:
            raise StdinNotImplementedError(
                "getpass was called, but this frontend does not support input requests."
            )
        return self._ask(prompt, True)

    def _ask(self, prompt, password):
        request = requests.current()
        self.output.flush()
        # What was typed before the question is not an answer to it.
        if not self.reading:
            self.wire.drain()
        while self._take_input() is not None:
            pass
        content = dumps({"prompt": prompt, "password": password})
        self._asking += 1
        try:
            self.wire.send_frames(self._frame("stdin", "input_request", request, content))
            if get_ident() == interrupts.main_thread:
                return self._wait_for_input()
            return self._wait_in_thread()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted by user") from None
        finally:
            self._asking -= 1

    def _wait_for_input(self):
        """In the main thread: interruptible while nothing arrives, then reads whole frames."""
        while True:
            value = self._take_input()
            if value is not None:
                return value
            if not self.wire.wait(1000):
                continue
            interrupts.critical += 1
            try:
                ended = not self.wire.drain()
            finally:
                interrupts.critical -= 1
            if interrupts.pending:
                interrupts.fire()
            if ended:
                raise EOFError("the client is gone")

    def _wait_in_thread(self):
        """In another thread: the main thread reads if it is idle, else this one."""
        while True:
            value = self._take_input()
            if value is not None:
                return value
            if self.reading:
                sleep(0.02)
            elif self.wire.wait(20) and not self.reading and not self.wire.drain():
                raise EOFError("the client is gone")

    def _take_input(self):
        for frames in (self._answers, self.wire.inbox):
            for frame in frames:
                if frame["channel"] == "stdin":
                    frames.remove(frame)
                    return frame["content"].get("value", "")
        return None

    # Names that libraries use

    def get_parent(self, channel=None):
        frame = requests.current().frame
        return {
            "header": frame["header"],
            "msg_id": frame["header"].get("msg_id"),
            "msg_type": frame["header"].get("msg_type"),
            "parent_header": frame.get("parent_header", {}),
            "metadata": frame.get("metadata", {}),
            "content": frame["content"],
            "buffers": [],
        } if frame["header"] else {}

    # Forks

    def before_fork(self):
        self.output.flush()

    def forget(self):
        """In a forked child."""
        self.forked = True
        interrupts.after_fork()
        self.output.forget()
        self.wire.forget()

    def _leave_child(self):
        """A child that comes to the end of the cell ends: there is one kernel, and it is the parent."""
        self._flush_all()
        _exit(0)
