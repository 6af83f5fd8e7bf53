"""A disk that loses what was not synced: recorded file operations, and what a power cut leaves.

The model is POSIX's, and stricter than most file systems: the contents of a file are sure up to
its last fsync, the names in a directory up to the directory's. What came later may be there or
not, each name for itself; contents may be torn or zeros. A rename takes place whole or not at all.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What an fsync is done for: the names of the functions that called it, and the path.
Planted = Callable[[list[str], Path], bool]


@dataclass
class File:
    """Contents as a reader sees them now, and as the last fsync left them."""

    now: bytes = b""
    sure: bytes = b""


@dataclass
class Directory:
    """Names as a reader sees them now, as the last fsync left them, and what came since."""

    now: dict[str, "File | Directory"] = field(default_factory=dict)
    sure: dict[str, "File | Directory"] = field(default_factory=dict)
    since: list[dict[str, "File | Directory | None"]] = field(default_factory=list)

    def change(self, names: dict[str, "File | Directory | None"]) -> None:
        _apply(self.now, names)
        self.since.append(names)

    def sync(self) -> None:
        self.sure, self.since = dict(self.now), []


def _apply(entries: dict[str, Any], names: dict[str, Any]) -> None:
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Survival:
    """What of the unsynced a power cut leaves: nothing, everything, or what the dice say."""

    def __init__(self, what: str | int) -> None:
        self._what = what
        self._dice = random.Random(what if isinstance(what, int) else 0)

    def keeps_name(self) -> bool:
        if isinstance(self._what, str):
            return self._what == "all"
        return self._dice.random() < 0.5

    def contents(self, file: File) -> bytes:
        if isinstance(self._what, str):
            return file.now if self._what == "all" else file.sure
        rest = file.now[len(file.sure) :] if file.now.startswith(file.sure) else b""
        torn = file.sure + rest[: self._dice.randint(0, len(rest))]
        zeros = file.sure + bytes(len(rest))
        return self._dice.choice([file.sure, file.now, torn, zeros])


class Recording:
    """The acts on the disk below `root`, replayed one by one; `marks` are the scenario's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.acts: list[Callable[[Directory], None]] = []
        self.marks: dict[int, list[Any]] = {}

    def mark(self, one: Any) -> None:
        """Note what the scenario has done after the acts so far."""
        self.marks.setdefault(len(self.acts), []).append(one)

    def cuts(self) -> Iterator[tuple[list[Any], Directory]]:
        """Yield, for each number of acts, the marks so far and the disk as the acts left it."""
        top, marks = Directory(), []
        for n in range(len(self.acts) + 1):
            if n:
                self.acts[n - 1](top)
            marks += self.marks.get(n, [])
            yield marks, top

    @contextmanager
    def on(self, planted: Planted = lambda callers, path: False) -> Iterator[None]:
        """Record what this process does; an fsync for which `planted` holds is left out."""
        real = {name: getattr(os, name) for name in _WATCHED}
        for name in _WATCHED:
            setattr(os, name, getattr(self, f"_{name}")(real[name]))
        self._planted = planted
        try:
            yield
        finally:
            for name, call in real.items():
                setattr(os, name, call)

    def _parts(self, path: Any, dir_fd: int | None = None) -> tuple[str, ...] | None:
        whole = Path(os.fsdecode(path)) if not isinstance(path, int) else self._path_of(path)
        if dir_fd is not None and not whole.is_absolute():
            whole = self._path_of(dir_fd) / whole
        return whole.relative_to(self.root).parts if whole.is_relative_to(self.root) else None

    def _path_of(self, descriptor: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))

    def _open(self, call: Any) -> Any:
        def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
            parts = self._parts(path, dir_fd)
            is_new = flags & os.O_CREAT and not os.path.lexists(path)
            descriptor = call(path, flags, mode, dir_fd=dir_fd)
            if parts is not None and is_new:
                self.acts.append(_creation(parts))
            return descriptor

        return opened

    def _write(self, call: Any) -> Any:
        def written(descriptor: int, content: Any) -> int:
            parts = self._parts(descriptor)
            count = call(descriptor, content)
            at = os.lseek(descriptor, 0, os.SEEK_CUR) - count
            if parts is not None:
                self.acts.append(_writing(parts, at, bytes(memoryview(content)[:count])))
            return count

        return written

    def _ftruncate(self, call: Any) -> Any:
        def truncated(descriptor: int, length: int) -> None:
            call(descriptor, length)
            if (parts := self._parts(descriptor)) is not None:
                self.acts.append(_truncation(parts, length))

        return truncated

    def _fsync(self, call: Any) -> Any:
        def synced(descriptor: int) -> None:
            call(descriptor)
            path = self._path_of(descriptor)
            if (parts := self._parts(descriptor)) is None or self._planted(_callers(), path):
                return
            self.acts.append(_sync(parts))

        return synced

    def _rename(self, call: Any) -> Any:
        def renamed(source: Any, target: Any) -> None:
            call(source, target)
            ours, theirs = self._parts(source), self._parts(target)
            assert ours is not None
            assert theirs is not None
            assert ours[:-1] == theirs[:-1], "the model knows renames within a directory only"
            self.acts.append(_renaming(ours, theirs[-1]))

        return renamed

    _replace = _rename

    def _link(self, call: Any) -> Any:
        def linked(source: Any, target: Any) -> None:
            call(source, target)
            self.acts.append(_linking(self._parts(source), self._parts(target)))

        return linked

    def _unlink(self, call: Any) -> Any:
        def removed(path: Any, *, dir_fd: Any = None) -> None:
            parts = self._parts(path, dir_fd)
            call(path, dir_fd=dir_fd)
            if parts is not None:
                self.acts.append(_removal(parts))

        return removed

    _rmdir = _unlink

    def _mkdir(self, call: Any) -> Any:
        def made(path: Any, mode: int = 0o777, *, dir_fd: Any = None) -> None:
            parts = self._parts(path, dir_fd)
            call(path, mode, dir_fd=dir_fd)
            if parts is not None:
                self.acts.append(_making(parts))

        return made


_WATCHED = (
    "open", "write", "ftruncate", "fsync", "rename", "replace", "link", "unlink", "rmdir", "mkdir",
)  # fmt: skip

Act = Callable[[Directory], None]


def _creation(parts: tuple[str, ...]) -> Act:
    return lambda top: _at(top, parts[:-1]).change({parts[-1]: File()})


def _making(parts: tuple[str, ...]) -> Act:
    return lambda top: _at(top, parts[:-1]).change({parts[-1]: Directory()})


def _removal(parts: tuple[str, ...]) -> Act:
    return lambda top: _at(top, parts[:-1]).change({parts[-1]: None})


def _renaming(parts: tuple[str, ...], name: str) -> Act:
    return lambda top: _at(top, parts[:-1]).change(
        {parts[-1]: None, name: _at(top, parts[:-1]).now[parts[-1]]}
    )


def _linking(source: tuple[str, ...], target: tuple[str, ...]) -> Act:
    return lambda top: _at(top, target[:-1]).change({target[-1]: _file(top, source)})


def _writing(parts: tuple[str, ...], at: int, content: bytes) -> Act:
    def act(top: Directory) -> None:
        file = _file(top, parts)
        file.now = file.now[:at] + content + file.now[at + len(content) :]

    return act


def _truncation(parts: tuple[str, ...], length: int) -> Act:
    def act(top: Directory) -> None:
        file = _file(top, parts)
        file.now = file.now[:length]

    return act


def _sync(parts: tuple[str, ...]) -> Act:
    def act(top: Directory) -> None:
        node = _node(top, parts)
        if isinstance(node, Directory):
            node.sync()
        else:
            node.sure = node.now

    return act


def _node(top: Directory, parts: tuple[str, ...]) -> File | Directory:
    return _at(top, parts[:-1]).now[parts[-1]] if parts else top


def _file(top: Directory, parts: tuple[str, ...]) -> File:
    node = _node(top, parts)
    assert isinstance(node, File)
    return node


def _at(top: Directory, parts: tuple[str, ...]) -> Directory:
    for name in parts:
        node = top.now[name]
        assert isinstance(node, Directory)
        top = node
    return top


def _callers() -> list[str]:
    """Return the names of the functions that asked for an fsync, the nearest first."""
    frame, names = sys._getframe(2), []
    while frame is not None and len(names) < 4:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


Contents = dict[str, bytes | None]


def left_by_a_power_cut(top: Directory, survival: Survival) -> Contents:
    """Return what is on the disk then, by path: the contents of files, None for directories."""
    found: Contents = {}
    _leave(top, "", survival, found)
    return found


def _leave(directory: Directory, where: str, survival: Survival, found: Contents) -> None:
    names = dict(directory.sure)
    for change in directory.since:
        if survival.keeps_name():
            _apply(names, change)
    for name, node in sorted(names.items()):
        path = f"{where}{name}"
        if isinstance(node, File):
            found[path] = survival.contents(node)
        else:
            found[path] = None
            _leave(node, f"{path}/", survival, found)


def laid_out(contents: Contents, directory: Path) -> Path:
    """Make a directory that holds `contents`."""
    directory.mkdir()
    for path, content in contents.items():
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content)
    return directory
