"""Data frames as application/vnd.caesarion.table+json, for a client that draws tables itself.

The beginning of the frame and what is known of the whole, never the whole: what is shown must not cost what is
held. The rest comes page by page, when a client asks for it (table_request). Nothing is imported: IPython finds the
formatter by the name of the class.

    {"id", "columns": [{"name", "dtype", "nulls"}], "index": [label] or null,
     "rows": [[value]], "offset", "total_rows", "total_columns"}

nulls is null where counting would take long. Values are numbers, booleans, null or text. id names the frame for further
pages as long as it is held: of what was shown last, the small frames in any case, large ones while the user has them.
"""

import sys
from collections import OrderedDict
from os import urandom
from weakref import ref

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

from .values import Refused, deadline, value as _value

MIME = "application/vnd.caesarion.table+json"
_ROWS = 200
_COLUMNS = 100
_PAGE = 1000  # rows of one page at most
# Cells up to which nulls are counted in pandas: some ten milliseconds.
_COUNTED = 2_000_000
# Rows up to which a page may be sorted, about a second: numbers, and what is compared in Python.
_SORTED = 10_000_000
_SORTED_OBJECTS = 500_000
# Seconds that a page may take.
_TIME = 5


class TableFormatter(BaseFormatter):
    format_type = Unicode(MIME)
    print_method = ObjectName("_repr_caesarion_table_")
    _return_type = dict


def watch(shell):
    formatter = TableFormatter(parent=shell.display_formatter)
    for module in ("pandas", "pandas.core.frame"):  # pandas 3 and 2 name the class differently
        formatter.for_type_by_name(module, "DataFrame", _quiet(_pandas))
    formatter.for_type_by_name("polars.dataframe.frame", "DataFrame", _quiet(_polars))
    shell.display_formatter.formatters[MIME] = formatter


def _quiet(function):
    """A table that cannot be made is left out: the other representations are there."""

    def call(frame):
        try:
            table = function(frame, 0, _ROWS, None)
            return {"id": held.add(frame), **table}
        except Exception:
            return None

    return call


class Frames:
    """The frames that were shown last, by id."""

    COUNT = 32
    BYTES = 128 << 20  # that are held for the pages alone

    def __init__(self):
        self._prefix = "frm_" + urandom(8).hex()
        self._count = 0
        self._known = OrderedDict()  # id: [weak reference, the frame or None, bytes]

    def add(self, frame):
        for key, (weak, _, _) in self._known.items():
            if weak() is frame:
                self._known.move_to_end(key)
                return key
        rows, columns = frame.shape
        size = 8 * rows * columns
        self._count += 1
        key = f"{self._prefix}_{self._count}"
        self._known[key] = [ref(frame), frame, size]
        if len(self._known) > self.COUNT:
            self._known.popitem(last=False)
        total = 0
        for entry in reversed(self._known.values()):
            if entry[1] is None:
                continue
            if total + entry[2] > self.BYTES:
                entry[1] = None
            else:
                total += entry[2]
        return key

    def get(self, key):
        entry = self._known.get(key)
        frame = entry and entry[0]()
        if frame is None:
            raise Refused(
                404,
                "frame-gone",
                "the kernel does not hold this table any more",
                "run the cell again to page it",
            )
        self._known.move_to_end(key)
        return frame

    def forget(self):
        self._known.clear()
        self._count = 0


held = Frames()


# Pages


def _is(frame, module, name):
    cls = getattr(sys.modules.get(module), name, None)
    return isinstance(cls, type) and issubclass(type(frame), cls)


def pager(frame):
    """The function that makes pages of frame, and what it makes them of; None if it is no table."""
    if _is(frame, "pandas", "DataFrame"):
        return _pandas, frame
    if _is(frame, "polars", "DataFrame"):
        return _polars, frame
    if _is(frame, "pandas", "Series"):
        return _pandas, frame.to_frame() if frame.name is not None else frame.to_frame("value")
    if _is(frame, "polars", "Series"):
        return _polars, frame.to_frame()
    if _is(frame, "numpy", "ndarray") and 1 <= frame.ndim <= 2 and frame.dtype.names is None:
        return _numpy, frame
    return None


def page(frame, offset=0, limit=_ROWS, sort=None, descending=False):
    """Rows of a frame as a table."""
    found = pager(frame)
    if found is None:
        raise Refused(400, "not-a-table", f"{type(frame).__name__} cannot be paged as a table")
    make, frame = found
    offset = min(max(int(offset), 0), frame.shape[0])
    limit = min(max(int(limit), 0), _PAGE)
    with deadline(_TIME):
        return make(frame, offset, limit, sort, bool(descending))


def _too_large(rows):
    return Refused(
        413,
        "sort-too-large",
        f"the table has {rows} rows, too many to be sorted for a page",
        "sort it with code, and show the result",
    )


def _column(names, sort):
    for i, name in enumerate(names):
        if str(name) == sort:
            return i
    raise Refused(400, "column-not-found", f"the table has no column {sort[:80]!r}")


def _pandas(frame, offset, limit, sort, descending=False):
    rows, columns = frame.shape
    shown = frame.iloc[:, :_COLUMNS]
    index = frame.index
    plain = type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
    if sort is None:
        part = shown.iloc[offset : offset + limit]
    else:
        part = shown.take(_pandas_order(frame, sort, descending)[offset : offset + limit])
        plain = False
    nulls = [None] * columns
    if rows * min(columns, _COLUMNS) <= _COUNTED:
        nulls = [int(n) for n in shown.isna().sum()]
    missing = part.isna().to_numpy().tolist()
    data = [part.iloc[:, i].tolist() for i in range(part.shape[1])]
    return {
        "columns": [
            {"name": str(name), "dtype": str(dtype), "nulls": count}
            for name, dtype, count in zip(shown.columns, shown.dtypes, nulls)
        ],
        "index": None if plain else [_value(label) for label in part.index],
        "rows": [
            [None if absent[i] else _value(data[i][row]) for i in range(len(data))]
            for row, absent in enumerate(missing)
        ],
        "offset": offset,
        "total_rows": rows,
        "total_columns": columns,
    }


def _pandas_order(frame, sort, descending):
    """The numbers of the rows in order, nulls last."""
    column = frame.iloc[:, _column(frame.columns, sort)]
    kind = getattr(column.dtype, "kind", "O")
    if len(column) > (_SORTED if kind in "biufmM" else _SORTED_OBJECTS):
        raise _too_large(len(column))
    column = column.reset_index(drop=True)
    options = {"ascending": not descending, "na_position": "last", "kind": "stable"}
    try:
        return column.sort_values(**options).index.to_numpy()
    except TypeError:  # values of different types
        return column.sort_values(key=lambda c: c.map(str), **options).index.to_numpy()


def _polars(frame, offset, limit, sort, descending=False):
    rows, columns = frame.shape
    names = frame.columns[:_COLUMNS]
    shown = frame.select(names)
    if sort is None:
        part = shown.slice(offset, limit)
    else:
        if rows > _SORTED:
            raise _too_large(rows)
        name = frame.columns[_column(frame.columns, sort)]
        order = frame[name].arg_sort(descending=descending, nulls_last=True)
        part = shown[order.slice(offset, limit)]
    nulls = shown.null_count().row(0) if names else ()
    return {
        "columns": [
            {"name": name, "dtype": str(dtype), "nulls": int(count)}
            for name, dtype, count in zip(names, shown.dtypes, nulls)
        ],
        "index": None,
        "rows": [[_value(value) for value in row] for row in part.rows()],
        "offset": offset,
        "total_rows": rows,
        "total_columns": columns,
    }


def _numpy(array, offset, limit, sort, descending=False):
    rows = array.shape[0]
    if array.ndim == 1:
        array = array.reshape(rows, 1)
    columns = array.shape[1]
    names = [str(i) for i in range(min(columns, _COLUMNS))]
    index = None
    if sort is None:
        part = array[offset : offset + limit, :_COLUMNS]
    else:
        if rows > (_SORTED if array.dtype.kind in "biufmM" else _SORTED_OBJECTS):
            raise _too_large(rows)
        order = array[:, _column(names, sort)].argsort(kind="stable")
        order = (order[::-1] if descending else order)[offset : offset + limit]
        part = array[order, :_COLUMNS]
        index = [int(i) for i in order]
    return {
        "columns": [{"name": name, "dtype": str(array.dtype), "nulls": None} for name in names],
        "index": index,
        "rows": [[_value(value) for value in row] for row in part.tolist()],
        "offset": offset,
        "total_rows": rows,
        "total_columns": columns,
    }


def table_request(kernel, content):
    """The answer to a client that pages a frame, by its id or by the name of a variable."""
    try:
        key, name = content.get("frame"), content.get("variable")
        if key:
            frame = held.get(key)
        else:
            names = kernel.shell.user_ns
            if not isinstance(name, str) or name not in names:
                raise Refused(
                    404, "variable-not-found", f"there is no variable {str(name)[:80]!r}", "run the cell that defines it"
                )
            frame = names[name]
        table = page(
            frame,
            content.get("offset", 0),
            content.get("limit", _ROWS),
            content.get("sort") or None,
            content.get("descending", False),
        )
    except Refused as error:
        return {"status": "error", "problem": error.problem}
    except Exception as error:  # the frame's own, or of a value in it
        problem = Refused(400, "table-failed", f"the page raised {type(error).__name__}").problem
        return {"status": "error", "problem": problem}
    if key:
        table["id"] = key
    return {"status": "ok", "table": table}
