"""Docstrings, the module map, comments, and what must not be in a text that is handed out."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.guards.tree import PACKAGES, Module, functions, modules

DTYPES = {
    "f4": "float32", "f8": "float64", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
    "u4": "uint32", "u8": "uint64", "b1": "bool", "i1": "int8", "i2": "int16",
}  # fmt: skip
# Each exemption with its reason.
MAY_NAME_A_REGISTRY = {"deploy/broker/pom.xml": "the format's namespace is one"}
_PLAN = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X|HAC[K])\b(?!\(#\d+\))")
_NOQA = re.compile(r"#\s*noqa\b(?P<codes>:\s*[A-Z]+\d+(?:\s*,\s*[A-Z]+\d+)*)?(?P<reason>.*)")
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/|\.\./shared\b")
_REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs|repo\d?\.maven|maven\.org|proxy\.golang"
    r"|art[i]factory|--(?:extra-)?index-url|trusted[-]host"
)


def module_map(architecture: str) -> dict[str, tuple[str, ...]]:
    """Return the sentences of the module map by path: one, or a row of several files' parts."""
    found: dict[str, tuple[str, ...]] = {}
    room = ""
    for line in architecture.splitlines():
        if heading := re.match(r"\*\*(\w+)/\*\*", line):
            room = heading[1] if heading[1] in PACKAGES else ""
        row = re.match(r"\|(?P<files>[^|]*\.py`[^|]*)\|(?P<sentence>.*)\|\s*$", line)
        if not row or not room:
            continue
        names = re.findall(r"`([^`]+\.py)`", row["files"])
        sentence = row["sentence"].strip()
        parts = [part.strip(" .") for part in re.split(r"[;,]", sentence)]
        openings = (sentence,) if len(names) == 1 else (sentence, *(part for part in parts if part))
        found |= {f"{room}/{name}": openings for name in names}
    return found


def opens_as_mapped(module: Module, architecture: str) -> Iterator[str]:
    """A module opens with the sentence that the module map gives it."""
    if module.path.endswith("__init__.py"):
        return
    openings = module_map(architecture).get(module.path)
    if openings is None:
        yield module.fault(1, "is not in the module map of ARCHITECTURE.md")
        return
    docstring = ast.get_docstring(module.tree) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    if not first.lower().startswith(tuple(one.lower() for one in openings)):
        yield module.fault(1, f"expected to open with one of {openings!r}, found {first!r}")


@dataclass(frozen=True)
class Parameter:
    """What a docstring or a signature says of one parameter; `n_dims` 0 is a scalar."""

    name: str
    dtype: str
    n_dims: int


def documented_kernels(module: Module) -> Iterator[str]:
    """A kernel's docstring names every parameter in order, with its dtype and shape."""
    for function in functions(module):
        signature = _kernel_signature(function)
        if signature is None:
            continue
        docstring = ast.get_docstring(function) or ""
        documented = _documented(docstring)
        names = [argument.arg for argument in function.args.args]
        if [one.name for one in documented] != names:
            found = [one.name for one in documented]
            said = f"{function.name}: expected parameters {names}, docstring has {found}"
            yield module.fault(function, said)
            continue
        yield from _disagreements(module, function, documented, signature)
        if not _is_void(signature) and "Returns\n-------" not in docstring:
            yield module.fault(function, f"{function.name}: returns a value, docstring says none")


def _disagreements(
    module: Module, function: ast.AST, documented: list[Parameter], signature: ast.expr
) -> Iterator[str]:
    types = _signature_types(signature, [one.name for one in documented])
    if types is not None and len(types) != len(documented):
        said = f"{len(documented)} parameters, signature has {len(types)}"
        yield module.fault(function, said)
    for one, compiled in zip(documented, types or documented, strict=False):
        is_record = compiled.dtype in {one.dtype, "?"} and one.dtype in RECORDS | _records(module)
        if one.dtype not in DTYPES.values() and not is_record:
            yield module.fault(function, f"docstring says {one}, which is no dtype")
        elif "?" not in compiled.dtype and one != compiled:
            yield module.fault(function, f"docstring says {one}, signature {compiled}")


def documented_records(module: Module) -> Iterator[str]:
    """Each array in a named tuple of the kernels has its dtype and shape beside it."""
    lines = module.text.splitlines()
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef) or node.name not in _records(module):
            continue
        for field in node.body:
            if not isinstance(field, ast.AnnAssign) or "ndarray" not in ast.unparse(field):
                continue
            beside = lines[field.lineno - 1].partition("#")[2].strip()
            dtype, _, shape = beside.partition(" ")
            if dtype not in DTYPES.values() or _shape(shape) == 0:
                said = f"{node.name}.{ast.unparse(field.target)}: expected '# dtype (shape)'"
                yield module.fault(field, said)


def _records(module: Module) -> set[str]:
    """Return the named tuples of a module of kernels."""
    classes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    return {one.name for one in classes if any(ast.unparse(b) == "NamedTuple" for b in one.bases)}


RECORDS = {name for one in modules() if one.room == "kernels" for name in _records(one)}


def _kernel_signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.expr | None:
    """Return the signature of a function under `@kernel`."""
    for decorator in function.decorator_list:
        is_kernel = isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)
        if is_kernel and decorator.func.id == "kernel" and decorator.args:
            return decorator.args[0]
    return None


def _is_void(signature: ast.expr) -> bool:
    return "void" in ast.unparse(signature).partition("(")[0]


def _documented(docstring: str) -> list[Parameter]:
    section = re.search(r"Parameters\n-{10}\n(?P<lines>(?:.+\n?)*)", docstring)
    found = []
    for line in section["lines"].splitlines() if section else ():
        if entry := re.match(r"(\w+(?:, \w+)*) : (\w+)(.*)", line):
            shape = _shape(entry[3])
            found += [Parameter(name, entry[2], shape) for name in entry[1].split(", ")]
    return found


def _shape(text: str) -> int:
    """Count the dimensions of `(n, 2 * (w + 1))` at the beginning of a text."""
    text = text.strip()
    if not text.startswith("("):
        return 0
    depth, commas, last = 0, 0, ""
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            break
        if letter == "," and depth == 1:
            commas, last = commas + 1, ""
        elif letter != " ":
            last += letter
    return commas + bool(last.strip("("))


def _signature_types(signature: ast.expr, names: list[str]) -> list[Parameter] | None:
    """Return what the signature says; None where it is a name, "?" where an argument is one."""
    if isinstance(signature, ast.Call):
        arguments = [("?", "")] * len(signature.args)
    elif isinstance(signature, ast.Constant):
        inside = signature.value[signature.value.index("(") + 1 : signature.value.rindex(")")]
        arguments = re.findall(r"(\w+)(\[[^\]]*\])?", inside)
    else:
        return None
    named = [*names, *("?" for _ in arguments[len(names) :])]
    return [
        Parameter(name, DTYPES.get(kind, kind), shape.count(",") + 1 if shape else 0)
        for name, (kind, shape) in zip(named, arguments, strict=False)
    ]


def plans(module: Module) -> Iterator[str]:
    """A plan has the number of its issue."""
    for number, line in enumerate(module.text.splitlines(), 1):
        if module.path.endswith(".py") and _PLAN.search(line):
            yield module.fault(number, "a plan without the number of its issue")


def reasons(module: Module) -> Iterator[str]:
    """An exemption from a lint has its codes and its reason."""
    for number, line in enumerate(module.text.splitlines(), 1):
        found = _NOQA.search(line) if module.path.endswith(".py") else None
        if found and not (found["codes"] and re.search(r"\w{3}", found["reason"])):
            yield module.fault(number, "noqa without its codes and a reason")


def machine_paths(module: Module) -> Iterator[str]:
    """Nothing names a place on the machine where it was made."""
    for number, line in enumerate(module.text.splitlines(), 1):
        if _MACHINE_PATH.search(line):
            yield module.fault(number, "names a place on somebody's machine")


def registries(module: Module) -> Iterator[str]:
    """Where packages come from is the business of who installs them."""
    if module.path in MAY_NAME_A_REGISTRY:
        return
    for number, line in enumerate(module.text.splitlines(), 1):
        if _REGISTRY.search(line):
            yield module.fault(number, "names a package registry")


MODULE_RULES = (documented_kernels, documented_records)
TEXT_RULES = (plans, reasons, machine_paths, registries)
