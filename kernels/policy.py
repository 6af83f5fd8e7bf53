"""How every kernel is compiled, and their registry, so that all are compiled before any poll.

A kernel is a plain function with one compiled signature: `@kernel("i8(f4[:, ::1], i8)")`. What
several kernels share is a `@part`: a function that only kernels call, compiled into each of them.

The compile cache lies in a directory named after a hash of all kernel sources: numba alone looks
at the file of the outermost function, and runs old arithmetic after a part in another file is
edited. `NUMBA_CACHE_DIR` moves the cache, `NUMBA_DISABLE_JIT` and `NUMBA_BOUNDSCHECK` mean what
they mean to numba. Where there is no home to write to, the cache is below the directory for
temporary files, in a directory that is ours alone: what is loaded from it is run.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

config: Any = numba.config

# nnan and ninf are left out: with them LLVM deletes the guards against non-finite rows.
FASTMATH = {"contract", "reassoc", "arcp", "nsz", "afn"}
# Kernels allocate nothing, so arrays need no reference counts inside them: without `_nrt` the
# session kernel takes a third of the time (`make bench`).
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}

_registry: dict[str, "Kernel"] = {}


def source_hash() -> str:
    """Return a hash of every file in `kernels/`, in the order of their names."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _cache_directory() -> str:
    for base in _cache_bases():
        directory = base / f"kernels-{source_hash()}"
        with suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                return str(directory)
    return tempfile.mkdtemp(prefix="livevec-kernels-")


def _cache_bases() -> Iterator[Path]:
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    else:
        with suppress(RuntimeError):  # a user without a home
            yield Path.home() / ".cache" / "livevec"
    ours = Path(tempfile.gettempdir()) / f"livevec-{os.getuid()}"
    with suppress(OSError):
        ours.mkdir(mode=0o700, exist_ok=True)
        found = ours.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            yield ours


config.CACHE_DIR = _cache_directory()


class Kernel:
    """One compiled function: exactly one signature, compiled at its first call or by `compile_all`.

    Raises `TypeError` when it is called with other types than its signature's.
    """

    def __init__(
        self, body: Callable[..., Any], signature: Any, fastmath: Any, variant: str = ""
    ) -> None:
        self.body = body
        self.name = f"{body.__module__}.{body.__name__}{variant}"
        self.signature = signature
        self.__doc__ = body.__doc__
        self.__wrapped__ = body
        self._dispatcher = numba.njit(cache=True, fastmath=fastmath, **OPTIONS)(body)
        self._is_compiled = bool(config.DISABLE_JIT)
        _registry[self.name] = self

    def compile(self) -> None:
        """Compile, or load from the cache; blocks for up to a few seconds."""
        if not self._is_compiled:
            self._dispatcher.compile(self.signature)
            self._dispatcher.disable_compile()
            self._is_compiled = True

    def signatures(self) -> list[Any]:
        """Return what has been compiled: one signature, or none yet."""
        return list(getattr(self._dispatcher, "signatures", []))

    def __call__(self, *arguments: Any) -> Any:
        """Run the compiled function; the first call compiles it."""
        if not self._is_compiled:
            self.compile()
        return self._dispatcher(*arguments)


def kernel(
    signature: Any, *, fastmath: set[str] | bool = FASTMATH, variant: str = ""
) -> Callable[[Callable[..., Any]], Kernel]:
    """Register a function as a kernel with this signature.

    Integer kernels pass `fastmath=False`: there is nothing to reassociate. Where several kernels
    are made of one function, `variant` is added to its name.
    """
    return lambda body: Kernel(body, signature, fastmath, variant)


def part(body: Callable[..., Any]) -> Any:
    """Compile a function into the kernels that call it; it is never an entry point."""
    # A call would pass each array of a tuple as seven values: training took a third longer.
    return numba.njit(fastmath=FASTMATH, forceinline=True, **OPTIONS)(body)


def registered() -> list[Kernel]:
    """Return every kernel of the modules imported so far, in the order of their names."""
    return [_registry[name] for name in sorted(_registry)]


def compile_all(progress: Callable[[int, int, str], None] | None = None) -> int:
    """Compile every registered kernel, calling `progress(done, total, name)` before each.

    Returns how many kernels there are. Called by the daemon before it reads its first click.
    """
    kernels = registered()
    for done, one in enumerate(kernels):
        if progress is not None:
            progress(done, len(kernels), one.name)
        one.compile()
    return len(kernels)
