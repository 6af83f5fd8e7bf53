"""Restore, and begin a term from it, so that no commit that has returned is left behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from state import recovery
from state.errors import StateError
from state.lease import Hold, Tenure
from state.manifest import generations
from state.recovery import Recovered


def succeed(
    directory: Path,
    hold: Hold,
    fingerprint: Mapping[str, Any],
    generation: int | None = None,
) -> tuple[Recovered | None, Tenure]:
    """Return what a start goes on from, as `recovery.newest` does, and the term begun from it.

    A process that was paused may go on while we read, and commit; or the last commit of one that
    has let go may still be under way. Such a commit returns only if it finds no newer term when
    all is written; we look what came only when our term has begun. So one that has returned is
    seen here, and gone on from by one more term; one that is not seen is void, and has not
    returned. Blocks for the length of the reads.

    Raises what `recovery.newest` does, and `DirectoryTaken` when another start was quicker or
    the process from which a contested directory is taken has gone on.
    """
    checkpoints = directory / "checkpoints"
    predecessor = hold.predecessor
    before = set(generations(checkpoints))
    while True:
        try:
            found = recovery.newest(directory, fingerprint, generation)
            break
        except StateError:
            hold.check()
            there = set(generations(checkpoints))
            if there == before:
                raise
            before = there  # what was being read has been collected meanwhile
    tenure = hold.begin_term(None if found is None else found.name)
    while generation is None:
        came = [
            name
            for name in generations(checkpoints)
            if name.term == predecessor and name not in before
        ]
        if not came:
            break
        before.update(came)
        found = recovery.restore(directory, came[-1], fingerprint)
        tenure = hold.begin_term(found.name)
    return found, tenure
