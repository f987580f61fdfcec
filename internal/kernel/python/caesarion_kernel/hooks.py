"""What is done when the user imports certain modules, forks, or starts a process."""

import os
import sys
from functools import wraps
from os import register_at_fork


class Imports:
    """A meta path finder that calls an action after a module has been imported, and nothing else."""

    def __init__(self):
        self._actions = {}
        self._lazy = set()
        sys.meta_path.insert(0, self)

    def after(self, name, action):
        module = sys.modules.get(name)
        if module is not None:
            action(module)
        else:
            self._actions[name] = action

    def lazily(self, name):
        """Has a module run when it is first used, not when another module imports it.

        For large tables that hardly anybody needs.
        """
        if sys.version_info >= (3, 12):  # before, two threads could both run it
            self._lazy.add(name)

    def find_spec(self, name, path=None, target=None):
        action, lazy = self._actions.get(name), name in self._lazy
        if action is None and not lazy:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        if lazy and hasattr(spec.loader, "exec_module"):
            from importlib.util import LazyLoader

            self._lazy.discard(name)
            spec.loader = LazyLoader(spec.loader)
            return spec
        load = getattr(spec.loader, "exec_module", None)
        if load is None:
            return spec

        def exec_module(module):
            load(module)
            if self._actions.pop(name, None) is not None:
                try:
                    action(module)
                except Exception:
                    # The user's import must not fail for a convenience of ours.
                    sys.excepthook(*sys.exc_info())

        try:
            spec.loader.exec_module = exec_module
        except AttributeError:
            pass
        return spec


def _before(function, act):
    @wraps(function)
    def call(*args, **kwargs):
        act()
        return function(*args, **kwargs)

    return call


def watch_processes(flush, after_system, forget):
    """flush is called before whatever writes to file descriptors 1 and 2 besides us, forget in
    every forked child."""
    register_at_fork(before=flush, after_in_child=forget)
    system = os.system

    @wraps(system)
    def call_system(command):
        flush()
        status = system(command)
        after_system()
        return status

    os.system = call_system
    for name in ("posix_spawn", "posix_spawnp", "execv", "execve"):
        function = getattr(os, name, None)
        if function is not None:
            setattr(os, name, _before(function, flush))


def watch_subprocess(flush):
    def act(subprocess):
        popen = subprocess.Popen
        popen._execute_child = _before(popen._execute_child, flush)

    return act


def c_stdio_flusher():
    """A function that empties the buffers of C's stdio, or None if this Python cannot call C.

    Through _ctypes: importing ctypes takes ten times as long.
    """
    try:
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "fflush")
        call = _ctypes.call_function
        call(address, (None,))
    except (ImportError, AttributeError, OSError):
        return None
    return lambda: call(address, (None,))
