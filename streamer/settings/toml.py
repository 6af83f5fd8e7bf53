"""A TOML file as a mapping, or in a few words what is wrong with it."""

import tomllib
from pathlib import Path
from typing import Any


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return what the file at `path` holds; raises `ValueError` that names it, and never quotes it.

    `what` says what is expected there.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path}: expected {what}, found nothing there"
        raise ValueError(msg) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{path}: expected a TOML file, found: {error}"
        raise ValueError(msg) from error
