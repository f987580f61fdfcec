"""Memory that is not needed goes back to the system."""

from gc import collect


def _c_trim():
    """glibc's malloc_trim, or None where the C library has none."""
    try:
        import _ctypes

        address, call = _ctypes.dlsym(_ctypes.dlopen(None, 0), "malloc_trim"), _ctypes.call_function
    except (ImportError, AttributeError, OSError):
        return None
    return lambda: call(address, (0,))


_trim = _c_trim()


def trim_request(kernel, content):
    """Collects what nobody refers to and gives free pages back."""
    collected = collect()
    if _trim is not None:
        _trim()
    return {"status": "ok", "collected": collected}
