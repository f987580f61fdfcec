"""matplotlib shows its figures inline, without being imported before the user does it."""

from importlib.util import find_spec

# Dots per inch: sharp enough on a laptop, half the bytes of "retina".
_DPI = 110


def set_environment(environ):
    if "MPLBACKEND" not in environ:
        inline = find_spec("matplotlib_inline") is not None
        environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline" if inline else "agg"
    # Plotly's other choice in a notebook adds 4 MB of JavaScript to the first figure.
    environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")


def watch(imports):
    imports.after("matplotlib", _defaults)
    imports.lazily("fontTools.agl")  # names of glyphs, for text set by TeX: 1.1 MB


def _defaults(matplotlib):
    if matplotlib.rcParams["figure.dpi"] == matplotlib.rcParamsDefault["figure.dpi"]:
        matplotlib.rcParams["figure.dpi"] = _DPI
