"""IPython's shell, with results, displays and tracebacks sent as messages.

What ipykernel's zmqshell.py does for its ZMQInteractiveShell is done here without sockets, sessions
and event loops. Differences are in docs/adr/0003-kernel-on-ipython-shell.md and in the test corpus.
"""

import os
from contextlib import contextmanager
from zlib import crc32

from IPython.core import page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import DisplayFormatter, PlainTextFormatter
from IPython.core.interactiveshell import InteractiveShell, InteractiveShellABC
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.lib.pretty import _repr_pprint
from traitlets import Any, CBool, Instance, Type, default

from . import interrupts


_FOLDER = f"/tmp/caesarion_{os.getpid()}"


class Compiler(CachingCompiler):
    """Names the file of a cell: like a path, which tracebacks and inspect treat as source."""

    def get_code_name(self, raw_code, transformed_code, number):
        return f"{_FOLDER}/{crc32(raw_code.encode('utf-8', 'replace'))}.py"


_SIMPLE = frozenset((int, bool, str))


class Formatter(DisplayFormatter):
    """Asks twelve formatters for the forms of an object, unless the answer is known.

    That is so for numbers and strings, unless the user has registered something for their types;
    it is a fifth of the time of an execution of 1+1.
    """

    def format(self, obj, include=None, exclude=None):
        kind = type(obj)
        if kind in _SIMPLE and not include and not exclude and self._untouched(kind):
            return {"text/plain": repr(obj)}, {}
        return super().format(obj, include=include, exclude=exclude)

    def _untouched(self, kind):
        if kind in self.ipython_display_formatter.type_printers:
            return False
        if kind in self.mimebundle_formatter.type_printers:
            return False
        name = ("builtins", kind.__name__)
        for mime, formatter in self.formatters.items():
            printers = formatter.type_printers
            if mime == "text/plain":
                if (
                    type(formatter) is not PlainTextFormatter
                    or not formatter.enabled
                    or printers.get(kind) is not _repr_pprint
                ):
                    return False
            elif kind in printers:
                return False
            if name in formatter.deferred_printers:
                return False
        return True


class Hook(DisplayHook):
    """sys.displayhook: sends execute_result."""

    kernel = Any()
    result = None  # content of the message under construction

    def start_displayhook(self):
        self.result = {"data": {}, "metadata": {}}

    def write_output_prompt(self):
        if self.result is not None:
            self.result["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict, md_dict=None):
        if self.result is not None:
            self.result["data"] = format_dict
            self.result["metadata"] = md_dict or {}

    def log_output(self, format_dict):
        # IPython keeps every bundle of the session for %notebook; only the text is kept here.
        if "text/plain" in format_dict:
            if self.shell.logger.log_output:
                self.shell.logger.log_write(format_dict["text/plain"], "output")
            history = self.shell.history_manager.output_hist_reprs
            history[self.prompt_count] = format_dict["text/plain"]

    def finish_displayhook(self):
        result, self.result = self.result, None
        if result is not None and result["data"]:
            # The result of the last expression, and the reply follows.
            last = self.shell.ast_node_interactivity in ("last_expr", "last")
            self.kernel.publish("execute_result", result, hold=last)


class Publisher(DisplayPublisher):
    """display(), update_display() and clear_output()."""

    kernel = Any()

    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **kwargs):
        metadata = {} if metadata is None else metadata
        self._validate_data(data, metadata)
        self.kernel.publish(
            "update_display_data" if update else "display_data",
            {"data": data, "metadata": metadata, "transient": transient or {}},
        )

    def clear_output(self, wait=False):
        self.kernel.publish("clear_output", {"wait": wait})


@magics_class
class KernelMagics(Magics):
    """Magics that need a terminal in plain IPython."""

    @line_magic
    def clear(self, arg_s):
        """Clear the terminal."""
        self.shell.system("clear")

    @line_magic
    def less(self, arg_s):
        """Show a file through the pager. Files ending in .py are syntax-highlighted."""
        from IPython.core.error import UsageError
        from IPython.utils import openpy

        if not arg_s:
            raise UsageError("Missing filename.")
        if arg_s.endswith(".py"):
            text = self.shell.pycolorize(openpy.read_py_file(arg_s, skip_encoding_cookie=False))
        else:
            with open(arg_s) as file:
                text = file.read()
        page.page(text)

    more = line_magic("more")(less)

    @line_magic
    def man(self, arg_s):
        """Find the man page for the given command and display it in the pager."""
        page.page(self.shell.getoutput("man %s | col -b" % arg_s, split=False))


class ZMQInteractiveShell(InteractiveShell):
    """The shell of one kernel.

    There is no ZeroMQ here; the name is what tqdm, rich and others look for when they ask whether
    their output goes to a notebook.
    """

    kernel = Any()
    compiler_class = Type(Compiler)
    displayhook_class = Type(Hook)
    display_pub_class = Type(Publisher)
    readline_use = CBool(False)
    autoindent = CBool(False)
    exiter = Instance(ZMQExitAutocall)
    keepkernel_on_exit = None

    @default("exiter")
    def _default_exiter(self):
        return ZMQExitAutocall(self)

    # Set by a traceback: reply to the request, and whether it came from showing the result.
    _last_traceback = None
    _last_traceback_during_displayhook = False

    def init_profile_dir(self, profile_dir):
        """Makes no folders: nothing is kept in a profile unless a magic asks for it."""
        from IPython.core.profiledir import ProfileDir

        if profile_dir is not None:
            self.profile_dir = profile_dir
            return
        # Not through the constructor: setting the location makes nine folders.
        profile = ProfileDir()
        with profile.hold_trait_notifications():
            profile._trait_values["location"] = os.path.join(self.ipython_dir, "profile_default")
        self.profile_dir = profile

    def init_ipython_dir(self, ipython_dir):
        home = os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")
        self._trait_values["ipython_dir"] = ipython_dir or home

    def init_virtualenv(self):
        """The kernel runs in the environment that it is installed in."""

    def init_environment(self):
        env = os.environ
        env["TERM"] = "xterm-color"
        env["CLICOLOR"] = env["FORCE_COLOR"] = env["CLICOLOR_FORCE"] = "1"
        env["PAGER"] = env["GIT_PAGER"] = "cat"

    def init_display_formatter(self):
        self.display_formatter = Formatter(parent=self)
        self.configurables.append(self.display_formatter)

    def init_display_pub(self):
        self.display_pub = self.display_pub_class(parent=self, shell=self, kernel=self.kernel)
        self.configurables.append(self.display_pub)

    def init_displayhook(self):
        super().init_displayhook()
        self.displayhook.kernel = self.kernel

    def init_hooks(self):
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self._page), 99)

    def init_magics(self):
        super().init_magics()
        self.register_magics(KernelMagics)

    def _page(self, text, start=0, screen_lines=0, pager_cmd=None):
        data = text if isinstance(text, dict) else {"text/plain": text}
        self.payload_manager.write_payload({"source": "page", "data": data, "start": max(0, start)})

    @contextmanager
    def _tee(self, channel):
        # IPython keeps all that is printed in memory, for %notebook. A cell that prints 100 MB
        # must not cost 100 MB for the rest of the session; and sys.stdout may be None.
        yield

    def enable_gui(self, gui=None):
        """There is no display: only the inline backend makes sense."""

    def ask_exit(self):
        self.exit_now = not self.keepkernel_on_exit
        self.payload_manager.write_payload(
            {"source": "ask_exit", "keepkernel": self.keepkernel_on_exit}
        )

    def set_next_input(self, text, replace=False):
        self.payload_manager.write_payload(
            {"source": "set_next_input", "text": text, "replace": replace}
        )

    def run_cell(self, *args, **kwargs):
        self._last_traceback = None
        self._last_traceback_during_displayhook = False
        self.displayhook.result = None
        return super().run_cell(*args, **kwargs)

    def _get_exc_info(self, exc_tuple=None):
        exc_info = self.kernel.loop.translate(super()._get_exc_info(exc_tuple))
        interrupts.hide(exc_info[2])
        return exc_info

    def _showtraceback(self, etype, evalue, stb):
        if self.displayhook.result is not None:
            # A failure while showing the result fails the execution.
            self._last_traceback_during_displayhook = True
        self._last_traceback = stb
        try:
            text = str(evalue)
        except Exception:
            text = "<exception str() failed>"
        self.kernel.publish(
            "error", {"traceback": stb, "ename": str(etype.__name__), "evalue": text}
        )

    # Names that widgets and others use.

    def get_parent(self):
        return self.kernel.get_parent()

    @property
    def parent_header(self):
        return self.kernel.get_parent()


InteractiveShellABC.register(ZMQInteractiveShell)

