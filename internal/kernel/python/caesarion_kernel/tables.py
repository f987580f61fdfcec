"""Data frames as application/vnd.caesarion.table+json, for a client that draws tables itself.

The beginning of the frame and what is known of the whole, never the whole: what is shown must not cost what is
held. Nothing is imported: IPython finds the formatter by the name of the class.

    {"columns": [{"name", "dtype", "nulls"}], "index": [label] or null,
     "rows": [[value]], "total_rows", "total_columns"}

nulls is null where counting would take long. Values are numbers, booleans, null or text.
"""

from math import isfinite

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

MIME = "application/vnd.caesarion.table+json"
_ROWS = 200
_COLUMNS = 100
_TEXT = 300  # characters of one value
# Cells up to which nulls are counted in pandas: some ten milliseconds.
_COUNTED = 2_000_000
# JavaScript's numbers are exact up to here.
_SAFE = 1 << 53


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
            return function(frame)
        except Exception:
            return None

    return call


def _value(value):
    if value is None or isinstance(value, bool):
        return value
    if hasattr(value, "item"):
        try:
            value = value.item()  # numpy's scalars
        except Exception:
            pass
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_SAFE <= value <= _SAFE else str(value)
    if isinstance(value, float):
        return value if isfinite(value) else None if value != value else str(value)
    text = str(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _pandas(frame):
    rows, columns = frame.shape
    head = frame.iloc[:_ROWS, :_COLUMNS]
    nulls = [None] * columns
    if rows * min(columns, _COLUMNS) <= _COUNTED:
        nulls = [int(n) for n in frame.iloc[:, :_COLUMNS].isna().sum()]
    missing = head.isna().to_numpy().tolist()
    data = [head.iloc[:, i].tolist() for i in range(head.shape[1])]
    index = frame.index
    plain = type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
    return {
        "columns": [
            {"name": str(name), "dtype": str(dtype), "nulls": count}
            for name, dtype, count in zip(head.columns, head.dtypes, nulls)
        ],
        "index": None if plain else [_value(label) for label in index[:_ROWS]],
        "rows": [
            [None if absent[i] else _value(data[i][row]) for i in range(len(data))]
            for row, absent in enumerate(missing)
        ],
        "total_rows": rows,
        "total_columns": columns,
    }


def _polars(frame):
    rows, columns = frame.shape
    names = frame.columns[:_COLUMNS]
    head = frame.select(names).head(_ROWS)
    nulls = frame.select(names).null_count().row(0) if names else ()
    return {
        "columns": [
            {"name": name, "dtype": str(dtype), "nulls": int(count)}
            for name, dtype, count in zip(names, head.dtypes, nulls)
        ],
        "index": None,
        "rows": [[_value(value) for value in row] for row in head.rows()],
        "total_rows": rows,
        "total_columns": columns,
    }
