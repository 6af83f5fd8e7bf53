"""Sizes, names and metrics."""

import ast
import re
from collections.abc import Iterator

from tests.guards.tree import Module, calls, functions, imports

MODULE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 8
VAGUE = {
    "util", "utils", "helper", "helpers", "manager", "handler", "handlers", "processor", "misc",
    "common",
}  # fmt: skip
METRICS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}


def small(module: Module) -> Iterator[str]:
    """Modules, functions and parameter lists are short."""
    n_lines = module.text.count("\n")
    if n_lines > MODULE_LINES:
        yield module.fault(n_lines, f"{n_lines} lines, at most {MODULE_LINES}")
    for function in functions(module):
        n_body = _body_lines(function)
        if n_body > FUNCTION_LINES:
            yield module.fault(function, f"{function.name}: {n_body} lines, <= {FUNCTION_LINES}")
        n_parameters = len(_parameters(function))
        if n_parameters > PARAMETERS:
            said = f"{function.name}: {n_parameters} parameters, <= {PARAMETERS}"
            yield module.fault(function, said)


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines behind the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [one.arg for one in named if one.arg not in {"self", "cls"}]


def telling_names(module: Module) -> Iterator[str]:
    """No module, class or function has a name that says nothing."""
    for part in module.dotted.split("."):
        if VAGUE & set(_words(part)):
            yield module.fault(1, f"the name {part!r} says nothing")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and VAGUE & set(_words(node.name)):
            yield module.fault(node, f"the name {node.name!r} says nothing")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            words = _words(node.name)
            if VAGUE & set(words) or (len(words) > 1 and words[0] in {"process", "do"}):
                yield module.fault(node, f"the name {node.name!r} says nothing")


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def metrics_in_one_place(module: Module) -> Iterator[str]:
    """Every metric is defined in streamer/metrics.py, and its name begins with livevec_."""
    is_home = module.path == "streamer/metrics.py"
    named = [name for _, name in imports(module) if name.startswith("prometheus_client")]
    if not named:
        return
    for node, name in calls(module):
        if name.split(".")[-1] not in METRICS:
            continue
        if not is_home:
            yield module.fault(node, f"{name}: metrics are defined in streamer/metrics.py")
        first = node.args[0] if node.args else None
        title = first.value if isinstance(first, ast.Constant) else None
        if not isinstance(title, str) or not title.startswith("livevec_"):
            yield module.fault(node, f"{name}: a metric's name is a literal livevec_...")


RULES = (small, telling_names, metrics_in_one_place)
