"""A kernel that becomes somebody's: environment, folder, and randomness of its own.

A sandbox may be one of many copies of a saved one, in the middle of its life. Whatever was drawn from the
system's randomness before is the same in all copies, so every generator that programs share starts anew. The
references are taken when a module has been imported, before user code can put something else in its place.

What is left as it was: generators that the user made (random.Random(), numpy.random.default_rng()), the secret
of str's hash (chosen by Python at its start, and every dict and set depends on it), the addresses of memory, and
what libraries keep for themselves in C. os.urandom and secrets ask the system each time.
"""

import os
import sys

_urandom, _chdir, _environ = os.urandom, os.chdir, os.environ
_modules = sys.modules
_reseeders = {}


def watch(imports):
    """Learns of modules that keep randomness, as they are imported."""
    for name, prepare in _KEEPERS.items():

        def remember(module, name=name, prepare=prepare):
            _reseeders[name] = prepare(module)

        imports.after(name, remember)


def reseed_request(kernel, content):
    """Gives every random generator that programs share a new beginning."""
    failed = {}
    for name, reseed in list(_reseeders.items()):
        try:
            reseed()
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return {"status": "ok", "reseeded": [n for n in _reseeders if n not in failed], "failed": failed}


def adopt_request(kernel, content):
    """Hands over a kernel that was started for nobody in particular."""
    _environ.update(content["env"])
    _chdir(content["cwd"])
    return reseed_request(kernel, content)


def _random(module):
    generator, seed = module._inst, module.Random.__mro__[1].seed

    def reseed():
        seed(generator)
        generator.gauss_next = None

    return reseed


def _numpy(module):
    generator = module.mtrand._rand

    def reseed():
        try:
            generator.seed()
        except TypeError:  # the user has chosen another kind of generator
            bits = generator._bit_generator
            bits.state = type(bits)().state

    return reseed


def _uuid(module):
    def reseed():
        # The C library's part of uuid1 keeps node and sequence where nothing reaches them.
        module._generate_time_safe = None
        module._node = int.from_bytes(_urandom(6)) | 1 << 40  # the bit says: not a network card's
        for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7", "_last_counter_v7"):
            if hasattr(module, name):
                setattr(module, name, 0 if name == "_last_counter_v7" else None)

    return reseed


def _tempfile(module):
    def reseed():
        module._name_sequence = None

    return reseed


def _ssl(module):
    add = module.RAND_add
    return lambda: add(_urandom(48), 48.0)


def _multiprocessing(module):
    current, key = module._current_process, module.AuthenticationString

    def reseed():
        # Children that run know the old one.
        if not module._children:
            current._config["authkey"] = key(_urandom(32))

    return reseed


def _torch(module):
    return module.seed


def _tensorflow(module):
    seed = module.random.set_seed
    return lambda: seed(int.from_bytes(_urandom(4)))


_KEEPERS = {
    "random": _random,
    "numpy.random": _numpy,
    "uuid": _uuid,
    "tempfile": _tempfile,
    "ssl": _ssl,
    "multiprocessing.process": _multiprocessing,
    "torch": _torch,
    "tensorflow": _tensorflow,
}
