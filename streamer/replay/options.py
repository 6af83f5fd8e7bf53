"""What `livevec replay` may be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.errors import ConfigError

TOPIC_PREFIX = "topic:"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """One field for each option of the command."""

    source: Annotated[
        str,
        typer.Argument(
            help="A file of dead letters or of clicks (CSV or JSON lines; plain, .gz or .zst), or "
            f"{TOPIC_PREFIX}NAME for a Kafka topic of dead letters."
        ),
    ]
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="TOML file with the settings; see the README."),
    ] = None
    topic: Annotated[
        str | None,
        typer.Option(help="Where to publish; dead letters go back to their own topic by default."),
    ] = None
    reason: Annotated[
        list[str] | None,
        typer.Option(help="Only dead letters with this reason; may be given several times."),
    ] = None
    keep_times: Annotated[
        bool,
        typer.Option(
            "--keep-times", help="Leave event times of dead letters as they are, late or not."
        ),
    ] = False
    since: Annotated[
        str | None,
        typer.Option(help="Only what came to a topic of dead letters from then on (ISO 8601)."),
    ] = None
    rest: Annotated[
        Path | None,
        typer.Option(
            help="Write the dead letters that were not published there; of a file of clicks, the "
            "lines that are none."
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and count, and publish nothing.")
    ] = False
    rate: Annotated[
        float | None, typer.Option(min=1.0, help="Publish so many records per second.")
    ] = None
    speed: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Publish clicks of a file as recorded, times this factor."),
    ] = None
    skip: Annotated[
        int, typer.Option(min=0, help="Begin behind so many lines, as an earlier run says.")
    ] = 0
    compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"], typer.Option(help="Of what is sent.")
    ] = "none"
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object, as the last line.")
    ] = False

    @property
    def letters_topic(self) -> str | None:
        """The topic that is the source, if it is one."""
        is_topic = self.source.startswith(TOPIC_PREFIX)
        return self.source.removeprefix(TOPIC_PREFIX) if is_topic else None

    def check(self, *, are_letters: bool) -> None:
        """Raise `ConfigError` that lists what does not go together."""
        is_topic = self.letters_topic is not None
        faults = [
            fault
            for is_wrong, fault in (
                (self.rate and self.speed, "expected one of --rate and --speed, found both"),
                (is_topic and self.skip, "expected --since with a topic, found --skip"),
                (self.since and not is_topic, "expected --since with a topic only, found a file"),
                (self.speed and are_letters, "expected --speed with clicks, found dead letters"),
                (self.reason and not are_letters, "expected --reason with dead letters only"),
                (
                    self.keep_times and not are_letters,
                    "expected --keep-times with dead letters only: clicks of a file keep theirs",
                ),
                (
                    self.rest and self.dry_run and are_letters,
                    "expected one of --rest and --dry-run with dead letters, found both",
                ),
                (not self.topic and not are_letters, "expected --topic with a file of clicks"),
            )
            if is_wrong
        ]
        if faults:
            raise ConfigError(*(f"replay: {fault}" for fault in faults))
