"""matplotlib shows its figures inline, without being imported before the user does it."""

from importlib.util import find_spec

# Dots per inch: sharp enough on a laptop, half the bytes of "retina".
_DPI = 110
# Families with Chinese, Japanese and Korean glyphs, the first that is installed is added as
# fallback: a label in one of these scripts is then neither boxes nor a warning a glyph.
_CJK = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK TC",
    "Noto Sans CJK KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)


def set_environment(environ):
    if "MPLBACKEND" not in environ:
        inline = find_spec("matplotlib_inline") is not None
        environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline" if inline else "agg"
    # Plotly's other choice in a notebook adds 4 MB of JavaScript to the first figure.
    environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")


def watch(imports):
    imports.after("matplotlib", _defaults)
    imports.after("matplotlib.font_manager", _fallback)


def _defaults(matplotlib):
    if matplotlib.rcParams["figure.dpi"] == matplotlib.rcParamsDefault["figure.dpi"]:
        matplotlib.rcParams["figure.dpi"] = _DPI


def _fallback(font_manager):
    from matplotlib import rcParams

    installed = {font.name for font in font_manager.fontManager.ttflist}
    for name in _CJK:
        if name in installed:
            if list(rcParams["font.family"]) == ["sans-serif"]:
                rcParams["font.family"] = ["sans-serif", name]
            rcParams["font.sans-serif"] = [*rcParams["font.sans-serif"], name]
            return
