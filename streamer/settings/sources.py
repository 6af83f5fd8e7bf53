"""Where clicks come from, and what their fields are called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from streamer.settings.base import Positive, Settings, Share
from streamer.settings.toml import read_toml


class FileSource(Settings):
    """Clicks from files, read one after the other."""

    paths: tuple[Path, ...] = Field(
        min_length=1, description="CSV or JSON lines, plain, .gz or .zst; read in this order"
    )
    format: Literal["auto", "csv", "jsonl"] = Field(
        "auto", description="auto: by the name, .csv or .tsv and .json, .jsonl or .ndjson"
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="between CSV columns")
    follow: bool = Field(False, description="wait for more at the end of the last file")


class KafkaSource(Settings):
    """Clicks from Kafka topics; all their partitions are assigned to this daemon."""

    bootstrap_servers: tuple[str, ...] = Field(min_length=1, description="host:port, one or more")
    topics: tuple[str, ...] = Field(min_length=1, description="topics of JSON clicks")
    group_id: str = Field(
        "livevec", min_length=1, description="carries committed offsets, for lag dashboards only"
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="where a first start begins; later starts go on at the manifest"
    )
    connect_timeout_seconds: Positive = Field(6.0, description="how long a start may take")
    client: Mapping[str, Any] = Field(
        default_factory=dict, repr=False, description="passed on to kafka-python by its own names"
    )
    client_file: Path | None = Field(
        None, description="TOML file of more settings for client, those that are secret"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_client_file(cls, values: Any) -> Any:
        """Put what the client's file holds under `client`, where that does not say otherwise."""
        path = values.get("client_file") if isinstance(values, Mapping) else None
        if not isinstance(path, str | Path):
            return values
        held = read_toml(Path(path), "a file of settings for source.kafka.client")
        client = values.get("client", {})
        return {**values, "client": {**held, **client} if isinstance(client, Mapping) else client}


class Source(Settings):
    """Where clicks come from: exactly one of the two."""

    files: FileSource | None = Field(None, description="clicks from files")
    kafka: KafkaSource | None = Field(None, description="clicks from Kafka")
    max_clicks_per_second: Positive | None = Field(
        None, description="read no faster than this; by default as fast as can be trained"
    )

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.files is not None and self.kafka is not None:
            msg = "expected one of files and kafka, found both"
            raise ValueError(msg)
        return self


class Clicks(Settings):
    """What the fields of a click are called, and how many unusable clicks are tolerated."""

    user: str = Field("user_id", min_length=1, description="the user's field")
    item: str = Field("item_id", min_length=1, description="the item's field")
    time: str = Field("ts", min_length=1, description="the event time's field")
    session: str = Field(
        "session_id",
        description="the session's field; where a click has none, its user is its session",
    )
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] = Field(
        "ms", description="the event time's unit"
    )
    max_dead_letters: int = Field(
        100, ge=0, description="this many are always tolerated; more only below the share"
    )
    max_dead_letter_share: Share = Field(
        0.01, description="tolerated share of the clicks read; beyond both, exit code 5"
    )
