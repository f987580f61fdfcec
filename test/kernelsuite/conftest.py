"""A kernelspec for our kernel, found by jupyter_client for the time of the tests."""

import json
import os
import sys
import tempfile

_folder = tempfile.TemporaryDirectory()


def pytest_configure(config):
    spec = os.path.join(_folder.name, "kernels", "caesarion")
    os.makedirs(spec)
    adaptor = os.path.join(os.path.dirname(__file__), "adaptor.py")
    with open(os.path.join(spec, "kernel.json"), "w") as file:
        json.dump(
            {
                "argv": [sys.executable, adaptor, "-f", "{connection_file}"],
                "display_name": "Caesarion",
                "language": "python",
            },
            file,
        )
    os.environ["JUPYTER_PATH"] = _folder.name


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    counts = {name: len(stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    terminalreporter.write_line(
        "jupyter_kernel_test: " + ", ".join(f"{n} {name}" for name, n in counts.items())
    )


def pytest_unconfigure(config):
    _folder.cleanup()
