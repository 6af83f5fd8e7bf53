"""What may happen in one place only: time, environment, dice, files, compilation, catching all."""

import ast
from collections.abc import Iterator

from tests.guards.tree import Module, calls, dotted_name, functions, imports

# Each exemption with its reason.
MAY_WRITE = {
    "state/durable.py": "the one place",
    "state/deaths.py": "a note that only the page cache has to keep, written for each batch",
    "state/append_log.py": "a file that grows in place, where the others are replaced",
    "state/lease.py": "locks are files that carry no state",
    "kernels/policy.py": "the compile cache is not state",
    "streamer/cli.py": "the null device, where a standard stream was closed",
    "streamer/demo.py": "a temporary directory for the state, made before and removed after",
    "streamer/evaluation/command.py": "a temporary directory for what it needs meanwhile",
}
MAY_DRAW = {
    "state/durable.py": "a file's name while it is being written, which no state depends on",
    "state/lease.py": "names of an owner and of a term's run, which no vector depends on",
    "streamer/daemon.py": "the space_id of a fresh start, which no vector depends on",
    "streamer/sources/mapping.py": "the type of an id that a record holds; none is drawn",
}
MAY_CATCH = {
    "streamer/daemon.py": "log, commit nothing, exit",
    "streamer/sources/kafka_watch.py": "what fails on a thread is raised again on the stream's",
    "streamer/publishing/beside.py": "what fails on a thread is raised again on the stream's",
}
WRITES = {
    "os.replace", "os.rename", "os.renames", "os.fsync", "os.fdatasync", "os.link", "os.symlink",
    "os.write", "os.pwrite", "os.truncate", "os.ftruncate", "os.unlink", "os.remove", "os.mkdir",
    "os.makedirs", "os.rmdir", "faiss.write_index", "np.save", "np.savez", "np.savetxt",
    "json.dump", "pickle.dump",
}  # fmt: skip
WRITE_METHODS = {
    "write_text", "write_bytes", "rename", "touch", "unlink", "mkdir", "rmdir", "symlink_to",
    "hardlink_to", "tofile", "save_file",
}  # fmt: skip
JIT = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil", "generated_jit"}
ENVIRONMENT = {"environ", "environb", "getenv", "putenv", "unsetenv"}
NOW = {"now", "utcnow", "today"}
DICE = {"random", "secrets", "uuid"}


def time_in_the_clock(module: Module) -> Iterator[str]:
    """The clock is read in streamer/clock.py only."""
    if module.path == "streamer/clock.py":
        return
    for node, name in imports(module):
        if name.lstrip(".").split(".")[0] == "time":
            yield module.fault(node, "time enters in streamer/clock.py only")
    for node, name in calls(module):
        parts = name.split(".")
        if parts[-1] in NOW and {"datetime", "date"} & set(parts[:-1]):
            yield module.fault(node, f"{name}(): time enters in streamer/clock.py only")


def environment_in_config(module: Module) -> Iterator[str]:
    """The environment is read in streamer/config.py only."""
    if module.path == "streamer/config.py":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            yield module.fault(node, f"{dotted_name(node)}: only streamer/config.py may")
    for node, name in imports(module):
        if name.split(".")[0] == "os" and name.split(".")[-1] in ENVIRONMENT:
            yield module.fault(node, f"{name}: only streamer/config.py may")


def files_in_durable(module: Module) -> Iterator[str]:
    """Files are written in state/durable.py only."""
    if module.path in MAY_WRITE:
        return
    for node, name in imports(module):
        if name.split(".")[0] in {"shutil", "tempfile"}:
            yield module.fault(node, f"{name} writes files; only state/durable.py may")
        if name in WRITES:
            yield module.fault(node, f"{name} writes files; only state/durable.py may")
    for node, name in calls(module):
        method = name.split(".")[-1]
        is_method = method in WRITE_METHODS and isinstance(node.func, ast.Attribute)
        is_path_replace = method == "replace" and _is_path_replace(node)
        if (name in WRITES and not _writes_to_memory(node)) or is_method or is_path_replace:
            yield module.fault(node, f"{name}() writes files; only state/durable.py may")
        if method == "open" and _opens_to_write(node):
            yield module.fault(node, f"{name}() for writing; only state/durable.py may")


def _is_path_replace(node: ast.Call) -> bool:
    """Tell `path.replace(target)` from `text.replace(old, new)` and `value.replace(field=...)`."""
    return isinstance(node.func, ast.Attribute) and len(node.args) == 1 and not node.keywords


def _writes_to_memory(node: ast.Call) -> bool:
    """Tell `faiss.write_index(index, writer)` from one that is given a path."""
    return len(node.args) == 2 and dotted_name(node.args[1]).endswith("writer")


def _opens_to_write(node: ast.Call) -> bool:
    flags = [dotted_name(part) for argument in node.args for part in ast.walk(argument)]
    if any(name in {"os.O_WRONLY", "os.O_RDWR", "os.O_CREAT"} for name in flags):
        return True
    first = 1 if isinstance(node.func, ast.Name) else 0  # open(path, mode), path.open(mode)
    arguments = [*node.args[first:], *(w.value for w in node.keywords if w.arg == "mode")]
    modes = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)


def compilation_in_policy(module: Module) -> Iterator[str]:
    """How kernels are compiled is said in kernels/policy.py only."""
    if module.path == "kernels/policy.py":
        return
    for node, name in imports(module):
        if name.split(".")[0] == "numba" and name.split(".")[-1] in JIT:
            yield module.fault(node, f"{name}: only kernels/policy.py compiles")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in JIT:
            yield module.fault(node, f"{dotted_name(node)}: only kernels/policy.py compiles")
    for node, name in calls(module):
        for word in node.keywords:
            if word.arg == "cache" or (word.arg == "fastmath" and not _is_off(word, name)):
                yield module.fault(node, f"{word.arg}=: only kernels/policy.py decides")


def _is_off(word: ast.keyword, called: str) -> bool:
    """An integer kernel says `@kernel(..., fastmath=False)`: there is nothing to reassociate."""
    is_false = isinstance(word.value, ast.Constant) and word.value.value is False
    return is_false and called.rpartition(".")[2] in {"kernel", "part"}


def catching_all(module: Module) -> Iterator[str]:
    """Only the daemon, and what closes, catch everything and go on; others raise it again."""
    if module.path in MAY_CATCH:
        return
    closing = {
        handler
        for function in functions(module)
        if function.name in {"close", "__exit__", "__aexit__"}
        for handler in ast.walk(function)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and node not in closing and _is_broad(node):
            yield module.fault(node, "catches everything; name what is expected")


def _is_broad(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    caught = [handler.type] if not isinstance(handler.type, ast.Tuple) else handler.type.elts
    return any(one is None or dotted_name(one) in {"Exception", "BaseException"} for one in caught)


def seeded_dice(module: Module) -> Iterator[str]:
    """Draws are functions of a seed (one-dice)."""
    may_draw = module.path in MAY_DRAW
    for node, name in imports(module):
        is_name = may_draw and name.split(".")[0] == "uuid"
        if (name.split(".")[0] in DICE and not is_name) or name.startswith("numpy.random"):
            yield module.fault(node, f"{name}: randomness without a seed of ours")
    for node, name in calls(module):
        if name.startswith(("np.random.", "numpy.random.")):
            is_seeded = name.endswith(".default_rng") and bool(node.args) and not _is_none(node)
            if not is_seeded or module.room == "kernels":
                yield module.fault(node, f"{name}(): randomness without a seed of ours")
        if name == "os.urandom" and not may_draw:
            yield module.fault(node, "os.urandom(): randomness without a seed of ours")


def _is_none(node: ast.Call) -> bool:
    return isinstance(node.args[0], ast.Constant) and node.args[0].value is None


RULES = (
    time_in_the_clock,
    environment_in_config,
    files_in_durable,
    compilation_in_policy,
    catching_all,
    seeded_dice,
)
