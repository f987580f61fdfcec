"""Packages that are installed while the kernel runs, and libraries that have to be told of the proxy."""

import os
import sys


def watch(imports):
    """Has what pip installs found without a restart, and aiohttp use the proxy."""
    if "CAESARION_OWNER" in os.environ:  # else this is no sandbox, and the home directory is somebody's
        _user_site()
    imports.after("aiohttp.client", _aiohttp)


def _user_site():
    """Puts the folder of the user's packages on the path.

    Python does so at its start, if the folder is there. It has to be made now: of one that is missing when the
    path is first searched, the import system remembers just that.
    """
    import site

    if not site.ENABLE_USER_SITE:
        return
    folder = site.getusersitepackages()
    if folder in sys.path:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return
    system = site.getsitepackages()
    place = next((i for i, entry in enumerate(sys.path) if entry in system), len(sys.path))
    sys.path.insert(place, folder)


def _aiohttp(module):
    """Unlike all others, aiohttp looks into the environment only if it is told to."""
    module.ClientSession.__init__.__kwdefaults__["trust_env"] = True
