"""The names that the user's code defined, for a panel beside the cells.

Made between two cells on the thread that runs them, so it must be quick and must not run the user's code: only types
that are known here are asked anything, and of all others the name of the type is all that is told.
"""

import sys
from itertools import islice
from time import monotonic
from types import FunctionType, ModuleType

from . import tables

_COUNT = 500  # names
_TIME = 0.25  # seconds; what comes later has no preview
_ROOM = 120  # characters of a preview
_ITEMS = 8  # elements of a container in a preview
_DEPTH = 3

# What classes say of themselves, asked so that no metaclass of the user's answers.
_name_of = type.__dict__["__name__"].__get__
_module_of = type.__dict__["__module__"].__get__

_NUMBERS = (bool, int, float, complex)
_LISTS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}"}
# Types whose str() is C of the standard library.
_PLAIN = (
    ("datetime", ("datetime", "date", "time", "timedelta")),
    ("decimal", ("Decimal",)),
    ("fractions", ("Fraction",)),
    ("uuid", ("UUID",)),
    ("pathlib", ("PosixPath", "PurePosixPath")),
)


def _type_name(obj):
    return _name_of(type(obj))


def _cut(text, room=_ROOM):
    return text if len(text) <= room else text[: room - 1] + "…"


def _line(text):
    return "".join(c if c.isprintable() else "·" for c in text)


def _times(shape):
    return " × ".join(str(int(n)) for n in shape)


def brief(obj, depth=_DEPTH):
    """A short repr of what is known to be harmless, by exact type; of all else its type."""
    kind = type(obj)
    if obj is None or obj is Ellipsis:
        return repr(obj)
    if kind in _NUMBERS:
        if kind is int and obj.bit_length() > 256:
            return f"int of {obj.bit_length()} bits"
        return repr(obj)
    if kind is str:
        return repr(_cut(obj))
    if kind in (bytes, bytearray):
        return repr(bytes(obj[:40])) + ("…" if len(obj) > 40 else "")
    if kind in (range, slice):
        return repr(obj)
    if kind in _LISTS or kind is dict:
        return _container(obj, kind, depth)
    if kind is FunctionType:
        code = obj.__code__
        return f"{code.co_name}({', '.join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])})"
    if isinstance(kind, type) and issubclass(kind, type):
        return f"class {_name_of(obj)}"
    for module, names in _PLAIN:
        module = sys.modules.get(module)
        if module is not None and any(getattr(module, name, None) is kind for name in names):
            return str(obj)
    return f"<{_name_of(kind)}>"


def _container(obj, kind, depth):
    if not obj:
        return "set()" if kind is set else "frozenset()" if kind is frozenset else "{}" if kind is dict else _LISTS[kind]
    if depth == 0:
        return "{…}" if kind is dict else "…".join(_LISTS[kind])
    if kind is dict:
        parts = [f"{brief(k, 0)}: {brief(v, depth - 1)}" for k, v in islice(obj.items(), _ITEMS)]
    else:
        parts = [brief(v, depth - 1) for v in islice(obj, _ITEMS)]
    if len(obj) > _ITEMS:
        parts.append("…")
    left, right = "{}" if kind is dict else _LISTS[kind]
    comma = "," if kind is tuple and len(obj) == 1 else ""
    return f"{left}{', '.join(parts)}{comma}{right}"


def _names(columns):
    return ", ".join(name[:40] if type(name) is str else brief(name, 0) for name in islice(columns, _ITEMS * 2))


def _numpy(obj):
    if obj.ndim == 0 or obj.dtype.kind not in "biufcmMSU":
        preview = str(obj.dtype)
    else:
        values = obj.reshape(-1)[:_ITEMS] if obj.flags.c_contiguous else obj.flat[:_ITEMS]
        some = ", ".join(brief(v, 0) if type(v) is not str else repr(v[:40]) for v in values.tolist())
        preview = f"{obj.dtype} [{some}{', …' if obj.size > _ITEMS else ''}]"
    return {"shape": _times(obj.shape), "size_bytes": int(obj.nbytes), "preview": preview}


def _pandas_frame(obj):
    rows, columns = obj.shape
    about = {"shape": _times(obj.shape), "preview": _names(obj.columns)}
    if columns <= 1000:
        about["size_bytes"] = int(obj.memory_usage(deep=False).sum())
    return about


def _pandas_series(obj):
    plain = getattr(obj.dtype, "kind", "") in "mM"  # pandas' own times
    head = ", ".join(str(v) if plain else brief(v, 0) for v in obj.iloc[:_ITEMS].tolist())
    return {
        "shape": _times(obj.shape),
        "size_bytes": int(obj.memory_usage(deep=False)),
        "preview": f"{obj.dtype} [{head}{', …' if len(obj) > _ITEMS else ''}]",
    }


def _polars_frame(obj):
    return {"shape": _times(obj.shape), "size_bytes": int(obj.estimated_size()), "preview": _names(obj.columns)}


def _polars_series(obj):
    head = ", ".join(brief(v, 0) for v in obj.head(_ITEMS).to_list())
    return {
        "shape": _times((len(obj),)),
        "size_bytes": int(obj.estimated_size()),
        "preview": f"{obj.dtype} [{head}{', …' if len(obj) > _ITEMS else ''}]",
    }


def _torch(obj):
    return {
        "shape": _times(obj.shape),
        "size_bytes": int(obj.numel() * obj.element_size()),
        "preview": f"{obj.dtype} on {obj.device}",
    }


# By exact type: a subclass is the user's code.
_KNOWN = (
    ("numpy", "ndarray", _numpy),
    ("pandas", "DataFrame", _pandas_frame),
    ("pandas", "Series", _pandas_series),
    ("polars", "DataFrame", _polars_frame),
    ("polars", "Series", _polars_series),
    ("torch", "Tensor", _torch),
)


def _about(obj):
    kind = type(obj)
    for module, name, ask in _KNOWN:
        module = sys.modules.get(module)
        if module is not None and getattr(module, name, None) is kind:
            return {**ask(obj), "table": tables.pager(obj) is not None}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(getattr(numpy, "generic", None), type) and issubclass(kind, numpy.generic):
        return {"preview": brief(obj.item(), 0), "size_bytes": int(obj.nbytes)} if _module_of(kind) == "numpy" else {}
    about = {"preview": brief(obj)}
    if kind in _LISTS or kind in (dict, str, bytes, bytearray):
        about["shape"] = str(len(obj))
        about["size_bytes"] = sys.getsizeof(obj)
    return about


def describe(name, obj, late):
    about = {"name": name, "type": _cut(_type_name(obj), 80), "preview": ""}
    if not late:
        try:
            about.update(_about(obj))
        except Exception:
            pass  # the name and the type are something
    about["preview"] = _cut(_line(about["preview"]))
    return {key: value for key, value in about.items() if value not in (None, False)}


def listing(names, hidden):
    """The variables among names, sorted, and whether there are more."""
    missing = object()
    found = []
    for name, obj in list(names.items()):
        if type(name) is not str or name.startswith("_") or type(obj) is ModuleType:
            continue
        if hidden.get(name, missing) is obj:  # IPython's own
            continue
        found.append(name)
    found.sort()
    end = monotonic() + _TIME
    return {
        "variables": [describe(name, names[name], monotonic() > end) for name in found[:_COUNT]],
        "truncated": len(found) > _COUNT,
    }


def variables_request(kernel, content):
    shell = kernel.shell
    try:
        with tables.deadline(2):
            return {"status": "ok", **listing(shell.user_ns, shell.user_ns_hidden)}
    except tables.Refused as error:
        return {"status": "error", "problem": error.problem}
