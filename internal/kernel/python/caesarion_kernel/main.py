"""Start-up."""

import sys
from _thread import get_ident

from . import interrupts
from .encode import Envelope, dumps, to_bytes
from .wire import Wire


def run(fd, preload):
    """Serves the agent at the other end of fd; returns when the kernel is to end."""
    assert get_ident() == interrupts.main_thread
    interrupts.install()
    wire, envelope = Wire(fd), Envelope()
    # At once: the agent sees that Python runs before the long part of the start, the imports.
    starting = envelope.message("iopub", "status", "{}", '{"execution_state":"starting"}')
    wire.send(to_bytes(starting))

    kernel = _build(wire, envelope)
    results = _preload(preload)
    _ready(kernel, results)
    kernel.serve()
    _end(kernel)


def _build(wire, envelope):
    import os

    from traitlets.config import Config

    from . import comms, figures, hooks, identity, network, requests, tables
    from .kernel import Kernel
    from .loop import Loop
    from .shell import ZMQInteractiveShell
    from .streams import Output, Stream

    output = Output(wire, envelope)
    stdout, stderr = Stream(output, "stdout", 1), Stream(output, "stderr", 2)
    kernel = Kernel(wire, envelope, output, stdout, stderr)
    kernel.loop = Loop(kernel)
    kernel.flush_c = hooks.c_stdio_flusher()
    requests.watch_threads()

    config = Config()
    config.HistoryManager.enabled = False  # no database on the sandbox's disk
    # tqdm and others look for this section to learn that they run in a notebook.
    config.IPKernelApp.tqdm = "see ZMQInteractiveShell"
    figures.set_environment(os.environ)
    # From here on the user's files can be imported; what the kernel needs is imported already.
    sys.path[0] = ""
    sys.argv = [""]
    shell = ZMQInteractiveShell.instance(config=config, kernel=kernel)
    shell.loop_runner = kernel.loop.run
    kernel.set_shell(shell)
    sys.stdout, sys.stderr = stdout, stderr

    imports = hooks.Imports()
    imports.after("asyncio", kernel.loop.attach)
    imports.after("subprocess", hooks.watch_subprocess(kernel.before_fork))
    imports.after("getpass", lambda module: setattr(module, "getpass", kernel.getpass))
    imports.after("comm", lambda module: comms.attach(kernel, module))
    figures.watch(imports)
    identity.watch(imports)
    network.watch(imports)
    tables.watch(shell)
    hooks.watch_processes(kernel.before_fork, kernel.after_system, kernel.forget)
    return kernel


def _preload(names):
    """Imports modules; gives {name: None or what went wrong}."""
    from importlib import import_module

    results = {}
    for name in names:
        try:
            import_module(name)
            results[name] = None
        except BaseException as error:
            results[name] = f"{type(error).__name__}: {error}"
    return results


def _ready(kernel, results):
    import gc

    # What exists now stays: the collector need not look at it again and again.
    gc.freeze()
    metadata = dumps({"ready": True, "preload": results})
    kernel.output.flush()
    kernel.wire.send_frames(kernel.status_frame("idle", metadata=metadata))


def _end(kernel):
    """Runs the user's exit functions, but waits for no thread: the agent wants the process to end."""
    import atexit
    from os import _exit

    try:
        atexit._run_exitfuncs()
        kernel._flush_all()
        kernel.output.flush()
    finally:
        _exit(0)
