"""The answers to requests that do not execute code. Each function gives the reply's content."""

import sys
from fnmatch import fnmatchcase
from os import getpid
from platform import node

from IPython.core import release
from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.utils.tokenutil import token_at_cursor

from .identity import adopt_request, reseed_request
from .memory import trim_request
from .tables import table_request
from .variables import variables_request

# The number of the session in replies to history_request; a client may also call it 0.
_SESSION = 1
_HELP_LINKS = [
    {"text": text, "url": url}
    for text, url in (
        ("Python Reference", "https://docs.python.org/%i.%i" % sys.version_info[:2]),
        ("IPython Reference", "https://ipython.readthedocs.io/en/stable/"),
        ("NumPy Reference", "https://docs.scipy.org/doc/numpy/reference/"),
        ("SciPy Reference", "https://docs.scipy.org/doc/scipy/reference/"),
        ("Matplotlib Reference", "https://matplotlib.org/contents.html"),
        ("SymPy Reference", "http://docs.sympy.org/latest/index.html"),
        ("pandas Reference", "https://pandas.pydata.org/pandas-docs/stable/"),
    )
]


def kernel_info_request(kernel, content):
    return {
        "status": "ok",
        "protocol_version": "5.3",
        "implementation": "ipython",
        "implementation_version": release.version,
        "language_info": {
            "name": "python",
            "version": sys.version.split()[0],
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "banner": kernel.shell.banner,
        "help_links": _HELP_LINKS,
        "supported_features": [],
    }


def complete_request(kernel, content):
    code, cursor = content["code"], content.get("cursor_pos")
    if cursor is None:
        cursor = len(code)
    with provisionalcompleter():
        completer = kernel.shell.Completer
        found = list(rectify_completions(code, completer.completions(code, cursor)))
    start, end = (found[0].start, found[0].end) if found else (cursor, cursor)
    types = [
        {"start": c.start, "end": c.end, "text": c.text, "type": c.type, "signature": c.signature}
        for c in found
    ]
    return {
        "status": "ok",
        "matches": [c.text for c in found],
        "cursor_start": start,
        "cursor_end": end,
        "metadata": {"_jupyter_types_experimental": types},
    }


def inspect_request(kernel, content):
    code = content["code"]
    name = token_at_cursor(code, content.get("cursor_pos", len(code)))
    reply = {"status": "ok", "found": False, "data": {}, "metadata": {}}
    try:
        reply["data"] = dict(
            kernel.shell.object_inspect_mime(
                name,
                detail_level=content.get("detail_level", 0),
                omit_sections=set(content.get("omit_sections", ())),
            )
        )
    except KeyError:
        return reply
    if not kernel.shell.enable_html_pager:
        reply["data"].pop("text/html", None)
    reply["found"] = True
    return reply


def is_complete_request(kernel, content):
    status, indent = kernel.shell.input_transformer_manager.check_complete(content["code"])
    return {"status": status, "indent": " " * indent} if status == "incomplete" else {"status": status}


def history_request(kernel, content):
    """The history of this session, the only one: nothing is kept on disk."""
    manager = kernel.shell.history_manager
    inputs = manager.input_hist_raw if content.get("raw", True) else manager.input_hist_parsed
    output = content.get("output", False)
    lines = list(enumerate(inputs))[1:]
    session = _SESSION
    kind, n = content.get("hist_access_type"), content.get("n")
    if kind == "tail":
        lines = lines[-n:] if n else lines
    elif kind == "range":
        session = content.get("session") or 0
        if session not in (0, _SESSION):
            lines = []
        stop = content.get("stop")
        lines = lines[max((content.get("start") or 1) - 1, 0) : None if stop is None else stop - 1]
    elif kind == "search":
        pattern = content.get("pattern") or "*"
        lines = [line for line in lines if fnmatchcase(line[1], pattern)]
        if content.get("unique"):
            lines = sorted({text: (number, text) for number, text in lines}.values())
        lines = lines[-n:] if n else lines
    else:
        lines = []
    reprs = manager.output_hist_reprs
    return {
        "status": "ok",
        "history": [
            [session, number, [text, reprs.get(number)] if output else text]
            for number, text in lines
        ],
    }


def comm_info_request(kernel, content):
    wanted = content.get("target_name")
    comms = kernel.comm_manager.comms if kernel.comm_manager is not None else {}
    return {
        "status": "ok",
        "comms": {
            key: {"target_name": comm.target_name}
            for key, comm in comms.items()
            if wanted is None or comm.target_name == wanted
        },
    }


def connect_request(kernel, content):
    return {"status": "ok"}


def usage_request(kernel, content):
    return {"hostname": node(), "pid": getpid()}


def rehearse_request(kernel, content):
    from .rehearsal import rehearse

    return rehearse(kernel)


HANDLERS = {
    function.__name__: function
    for function in (
        kernel_info_request,
        complete_request,
        inspect_request,
        is_complete_request,
        history_request,
        comm_info_request,
        connect_request,
        usage_request,
        variables_request,
        table_request,
        adopt_request,
        reseed_request,
        trim_request,
        rehearse_request,
    )
}
