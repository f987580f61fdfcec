"""Pages of files with rows and columns: CSV, TSV, JSON lines, Parquet, XLSX.

A program of its own beside the kernels, so that a page is there while they are busy: one request a line on standard
input, one answer a line on standard output, both JSON. It stays for some time and remembers where in a file rows begin,
so that a large file is read through once and never held.

    {"file", "sheet", "offset", "limit", "sort", "descending"}
    {"table": {…}} as in tables, or {"error": {"status", "code", "detail", "hint"}}

total_rows is -1 as long as nobody has read to the end. Only Parquet and XLSX need a library, and only when they are asked
for.
"""

import csv
import json
import os
import sys
from array import array
from collections import OrderedDict
from time import monotonic

from .values import Refused, value as _value

_ROWS = 200
_COLUMNS = 100
_PAGE = 1000  # rows of one page at most
_STEP = 1000  # rows between two places that are remembered
_SAMPLE = 1000  # rows that the types of columns are guessed from
_AHEAD = 0.3  # seconds for reading on behind the page, to know how many rows there are
_SORTED = 32 << 20  # bytes of a text file that is read through to be sorted
_SORTED_ROWS = 5_000_000  # rows of a Parquet file that is sorted
_XLSX = 64 << 20  # bytes of a workbook
_FIELD = 1 << 20  # characters of one field
_OPEN = 4  # files that are remembered
_NULLS = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"))


def _too_large(what):
    return Refused(413, "sort-too-large", f"the file is too large to be sorted for a page: {what}", "sort it with code")


# Text: CSV, TSV, JSON lines


class _Text:
    """A text file of records. Places are kept for every _STEP-th record: the byte where it begins."""

    def __init__(self, path):
        self.path = path
        self.size = os.stat(path).st_size
        with open(path, "rb") as file:
            self.encoding, self.start = _encoding(file.read(1 << 16))
        self.places = [self.start]
        self.done = 0  # records before the last place
        self.total = -1
        self._sorted = None

    def lines(self, at):
        """Lines; behind is the byte after the last one, where the next begins."""
        with open(self.path, "rb") as file:
            file.seek(at)
            while True:
                raw = file.readline(_FIELD)
                if not raw:
                    return
                self.behind += len(raw)
                yield raw.decode(self.encoding, "replace")

    def records(self, at):
        raise NotImplementedError

    def read(self, offset, limit):
        """Records from offset on; then reads on for a while where nobody has read yet, to find the end."""
        block = min(offset // _STEP, len(self.places) - 1)
        found = self._scan(block, offset, offset + limit, None)
        if self.total < 0:
            self._scan(len(self.places) - 1, -1, -1, monotonic() + _AHEAD)
        return found

    def _scan(self, block, first, end, until):
        """Goes through the records from a place on, to number end or for some time, and remembers places."""
        number, found = block * _STEP, []
        for record in self.records(self.places[block]):
            if first <= number < end:
                found.append(record)
            number += 1
            if number % _STEP == 0 and number // _STEP == len(self.places):
                self.places.append(self.behind)
            if number == end or until and number % 100 == 0 and monotonic() > until:
                return found
        self.total = number
        return found

    def ordered(self, column, descending):
        """Where all records begin, in order, nulls last. The last order is kept for its further pages."""
        if self.size > _SORTED:
            raise _too_large(f"{self.size >> 20} MiB, and up to {_SORTED >> 20} MiB can be")
        if self._sorted is None or self._sorted[0] != (column, descending):
            kind, keys, places, before = self.kinds[column], [], array("q"), self.start
            for record in self.records(self.start):
                keys.append(self.cell(record, column, kind))
                places.append(before)
                before = self.behind
            self.total = len(keys)
            self._sorted = (column, descending), places, array("q", _order(keys, descending))
        return self._sorted[1:]

    def page(self, offset, limit, sort, descending):
        index = None
        if sort:
            if sort not in self.names:
                raise Refused(400, "column-not-found", f"the file has no column {sort[:80]!r}")
            places, order = self.ordered(self.names.index(sort), descending)
            index = list(order[offset : offset + limit])
            rows = [next(iter(self.records(places[i]))) for i in index]
        else:
            rows = self.read(offset, limit)
        kinds = self.kinds[:_COLUMNS]
        return {
            "columns": [
                {"name": name, "dtype": kind, "nulls": None} for name, kind in zip(self.names, kinds)
            ],
            "index": index,
            "rows": [[_value(self.cell(row, i, kind)) for i, kind in enumerate(kinds)] for row in rows],
            "offset": offset,
            "total_rows": self.total,
            "total_columns": len(self.names),
        }


def _rank(key):
    if isinstance(key, bool):
        return 0, int(key)
    return (0, key) if isinstance(key, (int, float)) else (1, str(key))


def _order(keys, descending):
    """The numbers of keys in order, equal ones as they came, nulls last."""
    there = [i for i, key in enumerate(keys) if key is not None]
    if descending:  # twice reversed, equal ones stay as they are
        there.reverse()
    there.sort(key=lambda i: _rank(keys[i]))
    if descending:
        there.reverse()
    return there + [i for i, key in enumerate(keys) if key is None]


def _encoding(head):
    if head.startswith(b"\xef\xbb\xbf"):
        return "utf-8", 3
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise Refused(
            415, "encoding-unknown", "the file is not text that can be paged: it is UTF-16 or binary", "read it with code"
        )
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "cp1252", 0
    return "utf-8", 0


_NUMERIC = {"int64": int, "float64": float}


def _guess(texts):
    """The type of a column by some of its values."""
    texts = [t for t in texts if t not in _NULLS]
    if not texts:
        return "str"
    if all(t in ("true", "false", "True", "False", "TRUE", "FALSE") for t in texts):
        return "bool"
    for name, convert in _NUMERIC.items():
        try:
            for t in texts:
                if "_" in t:
                    raise ValueError
                convert(t)
        except ValueError:
            continue
        # 007 is a name and no number.
        if not any(len(t.lstrip("+-")) > 1 and t.lstrip("+-")[0] == "0" and t.lstrip("+-")[1].isdigit() for t in texts):
            return name
        return "str"
    return "str"


class Csv(_Text):
    def __init__(self, path, tabs):
        super().__init__(path)
        self.delimiter = "\t" if tabs else self._delimiter()
        self.behind = 0
        sample = []
        for record in self.records(self.start):
            sample.append(record)
            if len(sample) == 1:
                first_end = self.behind
            if len(sample) > _SAMPLE:
                break
        if not sample:
            self.names, self.kinds = [], []
            return
        body = sample[1:]
        width = max(len(record) for record in sample)
        head = sample[0]
        if self._is_header(head, body):
            self.start, self.places = first_end, [first_end]
        else:
            head, body = [], sample
        self.names = _unique([head[i].strip() if i < len(head) else "" for i in range(width)])
        columns = ([r[i] if i < len(r) else "" for r in body] for i in range(min(width, _COLUMNS)))
        self.kinds = [_guess(column) for column in columns] + ["str"] * max(0, width - _COLUMNS)

    def records(self, at):
        self.behind = at
        for record in csv.reader(self.lines(at), delimiter=self.delimiter):
            if record:
                yield record

    def _delimiter(self):
        with open(self.path, "rb") as file:
            file.seek(self.start)
            text = file.read(1 << 16).decode(self.encoding, "replace")
        lines = text.splitlines()[:50]
        best, most = ",", 0
        for mark in ",;\t|":
            widths = [len(r) for r in csv.reader(lines[:-1] or lines, delimiter=mark) if r]
            if not widths:
                continue
            usual = max(set(widths), key=widths.count)
            score = widths.count(usual) / len(widths) * (usual > 1) * (1 + min(usual, 50) / 100)
            if score > most:
                best, most = mark, score
        return best

    @staticmethod
    def _is_header(head, body):
        """Names, as it seems: no numbers, none twice, few absent."""
        texts = [t.strip() for t in head if t.strip()]
        if not texts or len(set(texts)) < len(texts) or len(texts) < len(head) - 1:
            return False
        return all(_guess([t]) == "str" or t in _NULLS for t in texts)

    @staticmethod
    def cell(row, i, kind):
        text = row[i] if i < len(row) else ""
        if kind == "str":
            return text or None
        if text in _NULLS:
            return None
        if kind == "bool":
            return text.lower() == "true" if text.lower() in ("true", "false") else text
        try:
            return _NUMERIC[kind](text)
        except ValueError:
            return text


def _unique(names):
    seen, out = set(), []
    for i, name in enumerate(names):
        name = base = name or f"column_{i + 1}"
        n = 2
        while name in seen:
            name, n = f"{base}_{n}", n + 1
        seen.add(name)
        out.append(name[:300])
    return out


class JsonLines(_Text):
    def __init__(self, path):
        super().__init__(path)
        self.behind = 0
        names = {}
        for number, record in enumerate(self.records(self.start)):
            if number >= _SAMPLE:
                break
            for key, cell in record.items():
                if len(names) < 10_000:
                    names.setdefault(key, set()).add(self._kind(cell))
        self.keys = list(names)
        self.names = [key[:300] for key in self.keys]
        self.kinds = [self._join(kinds - {None}) for kinds in names.values()]

    @staticmethod
    def _kind(cell):
        kinds = {bool: "bool", int: "int64", float: "float64", str: "str", type(None): None}
        return kinds.get(type(cell), "object")

    @staticmethod
    def _join(kinds):
        if len(kinds) == 1:
            return kinds.pop()
        return "float64" if kinds == {"int64", "float64"} else "object" if kinds else "str"

    def records(self, at):
        self.behind = at
        text = ""
        for line in self.lines(at):
            text += line
            if not line.endswith("\n") and len(text) < 8 * _FIELD and len(line) >= _FIELD // 4:
                continue  # a long line comes in pieces
            if text.strip():
                try:
                    record = json.loads(text)
                except ValueError:
                    raise Refused(
                        400, "not-a-table", "the file is not JSON lines: a line is no JSON", "open it as text"
                    ) from None
                yield record if isinstance(record, dict) else {"value": record}
            text = ""
        if text.strip():
            yield json.loads(text)

    def cell(self, row, i, kind):
        cell = row.get(self.keys[i])
        return json.dumps(cell, ensure_ascii=False) if isinstance(cell, (dict, list)) else cell


# Parquet


class Parquet:
    def __init__(self, path):
        self.path = path
        try:
            import polars
        except ImportError:
            raise Refused(
                501, "preview-unsupported", "the sandbox has no library that reads Parquet", "install polars"
            ) from None
        self.polars = polars
        try:
            scan = polars.scan_parquet(path, glob=False)
            self.schema = scan.collect_schema()
            self.total = scan.select(polars.len()).collect().item()
        except Exception as error:
            raise Refused(400, "not-a-table", f"the file is not Parquet: {str(error)[:200]}") from None

    def page(self, offset, limit, sort, descending):
        names = self.schema.names()
        scan = self.polars.scan_parquet(self.path, glob=False)
        if sort:
            if sort not in names:
                raise Refused(400, "column-not-found", f"the file has no column {sort[:80]!r}")
            if self.total > _SORTED_ROWS:
                raise _too_large(f"{self.total} rows")
            scan = scan.select(list(dict.fromkeys([*names[:_COLUMNS], sort])))
            scan = scan.sort(sort, descending=descending, nulls_last=True, maintain_order=True)
        part = scan.select(names[:_COLUMNS]).slice(offset, limit).collect()
        return {
            "columns": [{"name": n, "dtype": str(t), "nulls": None} for n, t in part.schema.items()],
            "index": None,
            "rows": [[_value(cell) for cell in row] for row in part.rows()],
            "offset": offset,
            "total_rows": self.total,
            "total_columns": len(names),
        }


# XLSX


class Workbook:
    def __init__(self, path):
        if os.stat(path).st_size > _XLSX:
            raise Refused(413, "table-too-large", f"the workbook is larger than {_XLSX >> 20} MiB", "read it with code")
        try:
            from openpyxl import load_workbook
        except ImportError:
            raise Refused(
                501, "preview-unsupported", "the sandbox has no library that reads workbooks", "install openpyxl"
            ) from None
        try:
            self.book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
            self.sheets = self.book.sheetnames
        except Exception as error:
            raise Refused(400, "not-a-table", f"the file is not a workbook: {str(error)[:200]}") from None
        self._read = {}

    def rows(self, sheet):
        """All rows of a sheet: read once, as it has no index."""
        if sheet not in self._read:
            if sheet not in self.sheets:
                raise Refused(404, "sheet-not-found", f"the workbook has no sheet {sheet[:80]!r}")
            found = self.book[sheet]
            rows = [] if not hasattr(found, "iter_rows") else [list(row) for row in found.iter_rows(values_only=True)]
            while rows and all(cell is None for cell in rows[-1]):
                rows.pop()
            self._read = {sheet: rows}
        return self._read[sheet]

    def page(self, offset, limit, sort, descending, sheet=None):
        rows = self.rows(sheet or self.sheets[0])
        width = max((len(row) for row in rows), default=0)
        head, body = [], rows
        if rows and all(cell is None or isinstance(cell, str) for cell in rows[0]) and any(rows[0]):
            head, body = rows[0], rows[1:]
        names = _unique([str(head[i]) if i < len(head) and head[i] is not None else "" for i in range(width)])
        index = None
        if sort:
            if sort not in names:
                raise Refused(400, "column-not-found", f"the sheet has no column {sort[:80]!r}")
            i = names.index(sort)
            keys = [_value(row[i]) if i < len(row) else None for row in body]
            index = _order(keys, descending)[offset : offset + limit]
            part = [body[n] for n in index]
        else:
            part = body[offset : offset + limit]
        width = min(width, _COLUMNS)
        kinds = [self._kind(row[i] for row in body[:_SAMPLE] if i < len(row)) for i in range(width)]
        return {
            "columns": [{"name": n, "dtype": k, "nulls": None} for n, k in zip(names, kinds)],
            "index": index,
            "rows": [[_value(row[i]) if i < len(row) else None for i in range(width)] for row in part],
            "offset": offset,
            "total_rows": len(body),
            "total_columns": len(names),
            "sheets": self.sheets,
        }

    @staticmethod
    def _kind(cells):
        kinds = {type(cell).__name__ for cell in cells if cell is not None}
        if kinds <= {"int", "float"} and kinds:
            return "float64" if "float" in kinds else "int64"
        return kinds.pop() if len(kinds) == 1 else "object" if kinds else "str"


# The program

_KINDS = {
    ".csv": lambda path: Csv(path, False),
    ".txt": lambda path: Csv(path, False),
    ".tsv": lambda path: Csv(path, True),
    ".tab": lambda path: Csv(path, True),
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": Parquet,
    ".pq": Parquet,
    ".xlsx": Workbook,
    ".xlsm": Workbook,
}
_open = OrderedDict()


def _reader(path):
    """What reads a file, remembered as long as the file is the same."""
    info = os.stat(path)
    key = (path, info.st_ino, info.st_size, info.st_mtime_ns)
    if key in _open:
        _open.move_to_end(key)
        return _open[key]
    extension = os.path.splitext(path)[1].lower()
    make = _KINDS.get(extension)
    if make is None:
        raise Refused(
            415,
            "not-a-table",
            f"files of type {extension[:20] or 'none'} cannot be paged as a table",
            "that can be " + ", ".join(sorted(_KINDS)),
        )
    for old in [k for k in _open if k[0] == path]:
        del _open[old]
    reader = _open[key] = make(path)
    if len(_open) > _OPEN:
        _open.popitem(last=False)
    return reader


def answer(request):
    try:
        offset = max(int(request.get("offset") or 0), 0)
        limit = min(max(int(request.get("limit") or _ROWS), 1), _PAGE)
        reader = _reader(request["file"])
        sort, descending = request.get("sort") or None, bool(request.get("descending"))
        if isinstance(reader, Workbook):
            table = reader.page(offset, limit, sort, descending, request.get("sheet"))
        else:
            table = reader.page(offset, limit, sort, descending)
        return {"table": table}
    except Refused as refused:
        return {"error": refused.problem}
    except FileNotFoundError:
        return {"error": Refused(404, "file-not-found", "the file is gone").problem}
    except MemoryError:
        _open.clear()
        return {"error": Refused(413, "table-too-large", "the file needs more memory than there is", "read a part of it with code").problem}
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return {"error": Refused(400, "not-a-table", f"the file cannot be read as a table: {text[:300]}").problem}


def main():
    csv.field_size_limit(_FIELD)
    # What libraries print must not come between the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    for line in sys.stdin:
        text = json.dumps(answer(json.loads(line)), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        out.write(text + "\n")
        out.flush()
