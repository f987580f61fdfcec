"""asyncio in cells.

As in ipykernel a cell runs "inside" an event loop: asyncio.create_task works at top level and tasks go on
between cells. Here the loop is only said to be running while plain code executes; it really runs
during a top-level await and, if there is something for it to do, between requests. A kernel
that never imports asyncio pays nothing, and its wait for the next request is one recv.

Unlike in ipykernel, asyncio.run works in a plain cell: no loop is really running there.
"""

from _thread import get_ident
from functools import wraps

from . import interrupts


class Loop:
    def __init__(self, kernel):
        self._kernel = kernel
        self._asyncio = None
        self._loop = None
        self._task = None  # of the cell that awaits
        self._cancelled = False  # by an interrupt
        self._in_cell = False

    # Set-up

    def attach(self, asyncio):
        """Called once, when asyncio has been imported."""
        self._asyncio = asyncio
        self._set_running = asyncio._set_running_loop
        self._get_running = asyncio._get_running_loop
        self._current_task = asyncio.current_task
        self._all_tasks = asyncio.all_tasks
        self._new_loop = asyncio.new_event_loop
        asyncio.run = asyncio.runners.run = self._outside(asyncio.run)
        runner = getattr(asyncio, "Runner", None)
        if runner is not None:
            runner.run = self._outside(runner.run)
        base = asyncio.BaseEventLoop
        base.run_until_complete = self._outside(base.run_until_complete)
        if self._in_cell and get_ident() == interrupts.main_thread:
            self._set_running(self.get())

    def _outside(self, function):
        """Lets function run a loop although a plain cell pretends that one is running."""

        @wraps(function)
        def run(*args, **kwargs):
            if self._get_running() is not self._loop or self._loop is None or self._loop.is_running():
                return function(*args, **kwargs)
            self._set_running(None)
            try:
                return function(*args, **kwargs)
            finally:
                self._set_running(self._loop)

        return run

    def get(self):
        if self._asyncio is None:
            import asyncio  # noqa: F401  (the import hook calls attach)
        if self._loop is None or self._loop.is_closed():
            self._loop = self._new_loop()
        return self._loop

    def enter_cell(self):
        self._in_cell = True
        self._cancelled = False
        if self._asyncio is not None:
            self._set_running(self.get())

    def leave_cell(self):
        self._in_cell = False
        if self._asyncio is not None:
            self._set_running(None)

    # A cell that awaits

    def run(self, coroutine):
        """IPython's loop_runner: runs the coroutine of a cell to its end."""
        loop = self.get()
        self._set_running(None)
        task = self._task = loop.create_task(coroutine)
        interrupts.waiting = self._interrupt_cell
        loop.add_reader(self._kernel.wire.fileno(), self._kernel.on_readable)
        try:
            while True:
                try:
                    return loop.run_until_complete(task)
                except KeyboardInterrupt:
                    if task.done():
                        raise
                    # It hit something else in the loop; the cell is what was meant.
                    self._cancelled = True
                    task.cancel()
        finally:
            interrupts.waiting = self._task = None
            loop.remove_reader(self._kernel.wire.fileno())
            self._set_running(loop)

    def _interrupt_cell(self):
        """In the signal handler. True if the interrupt is dealt with by cancelling."""
        if self._cancelled or self._current_task(self._loop) is not None:
            return False  # some coroutine is in the middle of its code: raise there
        self._cancelled = True
        self._loop.call_soon_threadsafe(self._task.cancel)
        return True

    def translate(self, exc_info):
        """The interrupt of an await arrives as CancelledError; users know KeyboardInterrupt."""
        etype, value, tb = exc_info
        if self._cancelled and etype is not None and issubclass(etype, self._asyncio.CancelledError):
            return KeyboardInterrupt, self.translate_error(value), tb
        return exc_info

    def translate_error(self, error):
        if self._cancelled and isinstance(error, self._asyncio.CancelledError):
            return KeyboardInterrupt().with_traceback(error.__traceback__)
        return error

    # Between requests

    def busy(self):
        """Whether there is anything for the loop to do."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return False
        if getattr(loop, "_ready", None) or getattr(loop, "_scheduled", None):
            return True
        selector = getattr(loop, "_selector", None)
        # One entry is the loop's own wake-up pipe.
        if selector is not None and len(selector.get_map() or ()) > 1:
            return True
        return bool(self._all_tasks(loop))

    def wait(self):
        """Runs the loop until a request arrives or nothing is left to do."""
        loop = self._loop
        fd = self._kernel.wire.fileno()
        loop.add_reader(fd, loop.stop)
        interrupts.waiting = self._interrupt_background
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            pass
        finally:
            interrupts.waiting = None
            loop.remove_reader(fd)

    def _interrupt_background(self):
        """In the signal handler, between cells. A task that hogs the loop while a request waits is stopped."""
        kernel = self._kernel
        if self._current_task(self._loop) is None or interrupts.critical or kernel.reading:
            return
        # The agent's own interrupt_request is always there: only one that stands behind a request means it.
        waits = meant = False
        interrupts.critical += 1  # another signal meanwhile would mix up the inbox
        try:
            kernel.wire.drain()
            for frame in kernel.wire.inbox:
                bell = kernel.is_bell(frame)
                meant = meant or bell and waits
                waits = waits or not bell
            if kernel.wire.inbox:
                # What is in the inbox wakes the loop no more.
                self._loop.call_soon_threadsafe(self._loop.stop)
        finally:
            interrupts.critical -= 1
        if meant:
            raise KeyboardInterrupt
