"""The version that answers; swaps versions without a failed query.

A query takes the loaded version once and answers from it alone, so a swap is one assignment:
no lock, no pause, and no answer from two versions.
"""

import threading
from pathlib import Path

import structlog

from state.errors import DamagedVersion, RecallBelowFloor, StateError, Superseded
from state.versions import Version, VersionName, open_version, read_current
from streamer.clock import Clock
from streamer.errors import NotReady
from streamer.metrics import ServingMetrics
from streamer.serving.ranking import Options, Searchable
from streamer.settings.process import Serving

_WARMING_QUERIES = 8


class Searcher:
    """The newest version that may serve.

    `refresh` looks once; `start` looks every `refresh_seconds` on a thread of its own.
    """

    def __init__(
        self, directory: Path, settings: Serving, clock: Clock, metrics: ServingMetrics
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self._directory = directory
        self._loaded: Searchable | None = None
        self._refused: tuple[VersionName | None, StateError] | None = None
        self._told: set[str] = set()
        self._death: BaseException | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = structlog.get_logger()

    def loaded(self) -> Searchable:
        """Return the version that answers; raises `NotReady` before the first."""
        loaded = self._loaded
        if loaded is None:
            raise NotReady(self._reason())
        return loaded

    @property
    def fault(self) -> str | None:
        """Why versions are no longer looked for, None while they are."""
        if self._death is None:
            return None
        return (
            f"no newer version of {str(self._directory)!r} will serve: looking for it ended with "
            f"{self._death!r}; restart this service, the log has more"
        )

    def refresh(self) -> bool:
        """Load the version that CURRENT names, if it is another one; tell whether it serves now.

        Blocks for the length of the load; queries go on meanwhile. A version that cannot be
        used is refused, with one line of log for each reason, and the old one keeps serving;
        unless it is damaged or its recall too low, the next look tries it again.
        """
        name = None
        try:
            name = read_current(self._directory)
            if name is None or self._is_known(name):
                return False
            version = open_version(self._directory, name, self.settings.kind)
            self._check_recall(version)
        except StateError as error:
            self._refuse(name, error)
            return False
        self._swap(version)
        return True

    def start(self) -> None:
        """Look for versions until `close`; the first look is over when this returns."""
        self.refresh()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking; what is loaded goes on answering. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        try:
            while not self._stopping.wait(self.settings.refresh_seconds):
                self.refresh()
        except BaseException as error:
            self._death = error
            self._log.exception("version_watch_died")
            raise

    def _is_known(self, name: VersionName) -> bool:
        if self._loaded is not None and self._loaded.version.name == name:
            return True
        if self._refused is None or self._refused[0] != name:
            return False
        return isinstance(self._refused[1], DamagedVersion | RecallBelowFloor)

    def _check_recall(self, version: Version) -> None:
        recall, floor = _recall(version), self.settings.recall_floor
        if recall < floor:
            message = (
                f"version {version.name}: expected a click-weighted recall@10 of at least "
                f"{floor}, found {recall:.3f} of index {version.kind!r}; lower "
                "serving.recall_floor, or raise index.recall_target"
            )
            raise RecallBelowFloor(message)

    def _swap(self, version: Version) -> None:
        began = self.clock.monotonic()
        old = self._loaded
        ready = Searchable.of(
            version, self.settings, None if old is None else str(old.version.name)
        )
        for item in ready.ids[:_WARMING_QUERIES]:
            ready.session([item], self.settings.session_decay, Options())
        self._loaded, self._refused = ready, None
        self._told.clear()
        self.metrics.swaps.inc()
        self.metrics.version_number.set(version.name.number)
        self.metrics.items.set(len(ready.ids))
        created_ms = version.manifest["created_ms"]
        self.metrics.version_age.set_function(
            lambda: max(0.0, (self.clock.now_ms() - created_ms) / 1000)
        )
        self._log.info(
            "version_swapped",
            version=str(version.name),
            previous=ready.previous,
            generation=version.manifest["generation"],
            kind=version.kind,
            n_items=len(ready.ids),
            recall=_recall(version),
            prepare_seconds=round(self.clock.monotonic() - began, 3),
        )

    def _refuse(self, name: VersionName | None, error: StateError) -> None:
        if self._refused is not None and self._refused[0] != name:
            self._told.clear()
        self._refused = (name, error)
        if str(error) in self._told:
            return
        self._told.add(str(error))
        reason = _reason_label(error)
        self.metrics.refusals.labels(reason).inc()
        serving = None if self._loaded is None else str(self._loaded.version.name)
        self._log.warning("version_refused", reason=reason, error=str(error), serving=serving)

    def _reason(self) -> str:
        where = f"{str(self._directory)!r}"
        if self._refused is not None:
            return f"no version of {where} can serve: {self._refused[1]}"
        return f"nothing has been published to {where} yet; waiting for the first version"


def _recall(version: Version) -> float:
    return float(version.index_facts["recall_at_10"]["click_weighted"])


def _reason_label(error: StateError) -> str:
    for kind, label in (
        (RecallBelowFloor, "recall"),
        (DamagedVersion, "damaged"),
        (Superseded, "superseded"),
    ):
        if isinstance(error, kind):
            return label
    return "unusable"
