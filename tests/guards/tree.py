"""The sources of the project as the guards see them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("kernels", "state", "streamer")


@dataclass(frozen=True)
class Module:
    """One file of Python: its path from the root, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @property
    def dotted(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def room(self) -> str:
        return self.path.split("/")[0]

    def fault(self, node: ast.AST | int, said: str) -> str:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {said}"


def modules() -> list[Module]:
    """Return every module of the three packages."""
    found = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [Module(path.relative_to(ROOT).as_posix(), path.read_text()) for path in found]


def texts() -> list[Module]:
    """Return every text that is handed out: code, tests, documents, deployment."""
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".xml", ".properties", ".txt", ""}
    skipped = {"__pycache__", "build", "data"}
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts)
        if hidden or skipped & set(parts) or any(part.endswith(".egg-info") for part in parts):
            continue
        if path.suffix in suffixes and path.is_file() and path.stat().st_size < 1 << 20:
            found.append(Module("/".join(parts), path.read_text(errors="replace")))
    return found


def dotted_name(node: ast.AST) -> str:
    """Return `a.b.c` of a chain of attributes, with `?` where it is no chain of names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield node, dotted_name(node.func)


def imports(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import with what it names: `import a.b` is a.b, `from a import b` is a.b."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, f"{'.' * node.level}{node.module or ''}.{alias.name}"
