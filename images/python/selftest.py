"""Proves, while the image is built, that its parts work; every warning is an error.

Runs as the unprivileged user, so what libraries cache at their first use
(matplotlib's list of fonts) is in the image already.
"""

import importlib
import io
import logging
import sys
import warnings

warnings.simplefilter("error")

MODULES = """
IPython ipykernel comm matplotlib_inline numpy pandas pyarrow pyarrow.parquet polars duckdb
openpyxl xlsxwriter scipy scipy.stats scipy.optimize sklearn sklearn.linear_model
sklearn.ensemble statsmodels.api sympy networkx matplotlib seaborn plotly.express altair
PIL docx pypdf bs4 lxml.etree requests httpx aiohttp tabulate tqdm yaml
""".split()

with warnings.catch_warnings():
    # What a library says about another at import is theirs to mend.
    warnings.simplefilter("ignore")
    for name in MODULES:
        importlib.import_module(name)

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
import seaborn

class Complaints(logging.Handler):
    """Turns a logged complaint (a font that is not found) into a failure."""

    def emit(self, record):
        sys.exit(f"matplotlib: {record.getMessage()}")


logging.getLogger("matplotlib").addHandler(Complaints(logging.WARNING))

def plot():
    fig, ax = plt.subplots()
    ax.plot([-1, 0, 1])
    ax.set_title("Grüße, Ελληνικά, Привет, 中文, 日本語 かな, 한국어")
    ax.set_xlabel("重さ", family="serif", weight="bold", style="italic")
    out = io.BytesIO()
    fig.savefig(out, format="png")
    assert out.getvalue().startswith(b"\x89PNG")


plot()
seaborn.set_theme()
plot()

frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
for write, read in (
    (frame.to_parquet, pd.read_parquet),
    (lambda f: frame.to_excel(f, index=False), pd.read_excel),
):
    buffer = io.BytesIO()
    write(buffer)
    buffer.seek(0)
    assert read(buffer).equals(frame)

import duckdb

assert duckdb.sql("select sum(a) from frame").fetchall() == [(6,)]
