"""`livevec evaluate`: a file is tested, in a directory that goes with it."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from streamer.clock import Clock
from streamer.config import Config
from streamer.evaluation.evaluate import Workplace, draw, evaluate
from streamer.evaluation.report import as_object
from streamer.progress import progress
from streamer.settings.sources import FileSource, Source


def run(config: Config, events: Path, n_tests: int, clock: Clock, *, sweep: bool) -> dict[str, Any]:
    """Evaluate the clicks of a file; whatever else is configured as a source is left out.

    Progress goes to standard error. Raises `ConfigError` where the file cannot be read, or nothing
    of it can be tested.
    """
    with tempfile.TemporaryDirectory(prefix="livevec-evaluate-") as directory:
        source = Source(files=FileSource(paths=(events,)))
        at = Workplace(config.model_copy(update={"source": source}), clock, Path(directory))
        sys.stderr.write("drawing the clicks that are tested\n")
        drawn = draw(at, n_tests)
        with progress(sys.stderr, clock, drawn.n_clicks, "evaluating") as show:
            tests = evaluate(at, drawn, show, is_wide=sweep)
    return as_object(tests, config.training.seed)
