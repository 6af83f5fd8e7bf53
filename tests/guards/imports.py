"""Imports go one way: kernels, then state, then streamer, and inside it the way of a click."""

import ast
from collections.abc import Iterator

from tests.guards.tree import PACKAGES, Module, dotted_name, functions, imports

KERNELS_MAY = {"numpy", "numba", "math", "kernels"}
# How kernels are compiled; and an instruction that only numba's llvmlite has a name for.
KERNELS_FREE = {"kernels/policy.py", "kernels/prefetch.py"}
RECORDS = "typing.NamedTuple"  # a tuple of arrays keeps a kernel's parameters few
PROCESS = ("logs", "http", "heap", "progress", "growing")
BASE = ("config", "settings", "clock", "deadline", "errors", "metrics", *PROCESS)
FOLDERS = ("sources", "windows", "training", "publishing")
# Serving imports none of the daemon's side; what starts processes may start it.
SERVING_MAY = (*BASE, "serving")
COMPOSERS = {
    "ledger": 5,
    "pace": 5,
    "standby": 5,
    "pipeline": 6,
    "replay": 6,
    "health": 5,
    "observer": 7,
    "obstacles": 7,
    "doubts": 7,
    "daemon": 8,
    "evaluation": 8,
    "demo": 9,
    "cli": 10,
    "__main__": 11,
}


def one_way(module: Module) -> Iterator[str]:
    """Rooms import only the rooms before them."""
    for node, name in imports(module):
        room = name.split(".")[0]
        if room in PACKAGES and PACKAGES.index(room) > PACKAGES.index(module.room):
            yield module.fault(node, f"{module.room} imports {name}, which lies above it")
        is_free = module.room != "kernels" or module.path in KERNELS_FREE
        if room not in KERNELS_MAY and name != RECORDS and not is_free:
            yield module.fault(node, f"kernels import numpy, numba and math only, not {name}")


def way_of_a_click(module: Module) -> Iterator[str]:
    """Within streamer, a folder imports the folders before it."""
    if module.room != "streamer" or module.path == "streamer/__init__.py":
        return
    own = _place(module.path.removeprefix("streamer/").removesuffix(".py").split("/")[0])
    for node, name in imports(module):
        parts = name.split(".")
        if parts[0] != "streamer":
            continue
        other = _place(parts[1])
        if other is None or own is None:
            yield module.fault(node, f"{name} or {module.path} has no place in the order")
        elif not _may(own, other):
            yield module.fault(node, f"{own[0]} may not import {name}")


def _place(part: str) -> tuple[str, int] | None:
    """Return a folder's or file's name and how far down the stream it lies."""
    if part in BASE:
        return part, 0
    if part in FOLDERS:
        return part, 1 + FOLDERS.index(part)
    if part == "serving":
        return part, 4
    return (part, COMPOSERS[part]) if part in COMPOSERS else None


def _may(own: tuple[str, int], other: tuple[str, int]) -> bool:
    if own[0] == "serving":
        return other[0] in SERVING_MAY
    if other[0] == "serving":
        return own[1] >= COMPOSERS["pipeline"]
    return own[0] == other[0] or other[1] < own[1] or own[1] == other[1] == 0


def absolute_and_at_the_top(module: Module) -> Iterator[str]:
    """No relative import, none inside a function, none for the type checker alone."""
    for node, name in imports(module):
        if name.startswith("."):
            yield module.fault(node, f"relative import {name}")
        if "TYPE_CHECKING" in name:
            yield module.fault(node, "an import for the type checker alone hides a cycle")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and dotted_name(node) == "typing.TYPE_CHECKING":
            yield module.fault(node, "an import for the type checker alone hides a cycle")
    for function in functions(module):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield module.fault(node, f"import inside {function.name}")


RULES = (one_way, way_of_a_click, absolute_and_at_the_top)
