"""The tree of state errors.

StateError
├── CheckpointError
│   ├── DamagedCheckpoint     a part or manifest is not what was written
│   ├── DamagedPointer        CURRENT is empty, unreadable or names nothing
│   ├── ForeignCheckpoint     the settings that give the state its meaning differ
│   └── NoSpace               the disk is full; nothing was left behind
├── DirectoryTaken            a living process holds the state directory
├── Superseded                a newer term owns the state directory
└── PublicationError
    ├── DamagedVersion        a published file is not what its manifest says
    └── RecallBelowFloor      an index is worse than the service accepts
"""


class StateError(Exception):
    """Raised when state cannot be read, written or owned; the program exits with 4."""


class CheckpointError(StateError):
    """Raised when a generation cannot be committed or restored."""


class DamagedCheckpoint(CheckpointError):
    """Raised when a generation's manifest or part is not what was written."""


class DamagedPointer(CheckpointError):
    """Raised when CURRENT is empty, unreadable, or names no generation."""


class ForeignCheckpoint(CheckpointError):
    """Raised when a generation was made under settings that cannot be changed."""


class NoSpace(CheckpointError):
    """Raised when the disk is full, before anything was renamed into place."""


class DirectoryTaken(StateError):
    """Raised when a living process holds the state directory."""


class Superseded(StateError):
    """Raised when a newer term owns the state directory, so that ours must write nothing."""


class PublicationError(StateError):
    """Raised when a published version cannot be used."""


class DamagedVersion(PublicationError):
    """Raised when a version's file is not what its manifest says."""


class RecallBelowFloor(PublicationError):
    """Raised when an index version finds fewer true neighbours than the service accepts."""
