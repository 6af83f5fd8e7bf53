"""Where clicks come from, and what their fields are called."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from streamer.settings.base import Count, Positive, Settings, Share
from streamer.settings.clicks import ClickMapping
from streamer.settings.presets import preset_settings
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
    """Clicks from Kafka topics, whose partitions this daemon assigns itself."""

    bootstrap_servers: tuple[str, ...] = Field(min_length=1, description="host:port, one or more")
    topics: tuple[str, ...] = Field(min_length=1, description="topics of clicks")
    partitions: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="of each topic, where several daemons share them, each with a state and a"
        " group of its own; all by default",
    )
    group_id: str = Field(
        "livevec", min_length=1, description="carries committed offsets, for lag dashboards only"
    )
    start: str = Field(
        "earliest",
        description="where a first start begins: earliest, latest, or a time (ISO 8601, of the"
        " records); later starts go on at the manifest",
    )
    on_recreated_topic: Literal["refuse", "restart"] = Field(
        "refuse", description="a topic that was deleted and made anew: read it from its beginning?"
    )
    on_lost_offsets: Literal["refuse", "skip"] = Field(
        "refuse", description="clicks that retention deleted unread: go on behind them?"
    )
    on_missing_topic: Literal["refuse", "ignore"] = Field(
        "refuse", description="a topic that is not there: wait for it beside the others?"
    )
    on_truncated_log: Literal["refuse", "resume"] = Field(
        "refuse", description="a log that has lost what was read of it: go on where it was cut?"
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

    @field_validator("start")
    @classmethod
    def _start_is_a_place(cls, start: str) -> str:
        if start not in {"earliest", "latest"}:
            try:
                datetime.fromisoformat(start)
            except ValueError as error:
                msg = f"expected earliest, latest or an ISO 8601 time, found {start!r}"
                raise ValueError(msg) from error
        return start


class Source(Settings):
    """Where clicks come from: files, or Kafka, or files first and then Kafka."""

    files: FileSource | None = Field(None, description="clicks from files")
    kafka: KafkaSource | None = Field(None, description="clicks from Kafka, behind those of files")
    max_clicks_per_second: Positive | None = Field(
        None, description="read no faster than this; by default as fast as can be trained"
    )

    max_ahead_seconds: Positive = Field(
        600.0,
        description="while there is something to catch up, a partition that is further ahead of"
        " the others in event time waits for them",
    )

    @model_validator(mode="after")
    def _history_ends(self) -> Self:
        if self.files is not None and self.kafka is not None and self.files.follow:
            msg = "expected files that end before kafka begins, found files.follow = true"
            raise ValueError(msg)
        return self


class Clicks(ClickMapping):
    """The mapping of every topic without one of its own, and how many bad clicks are tolerated."""

    max_event_ids: Count = Field(
        1_000_000,
        description="event ids remembered, the newest of all topics; a click with one of them is"
        " left out (duplicate)",
    )
    max_dead_letters: int = Field(
        100, ge=0, description="this many are always tolerated; more only below the share"
    )
    max_dead_letter_share: Share = Field(
        0.01, description="tolerated share of the clicks read; beyond both, exit code 5"
    )
    topics: Mapping[str, ClickMapping] = Field(
        default_factory=dict,
        description="by topic, or name of a file, what differs there; the rest is as above",
    )

    @field_validator("topics", mode="before")
    @classmethod
    def _as_above(cls, topics: Any, info: ValidationInfo) -> Any:
        """Put what [clicks] says, then a preset of the topic's own, under each topic's table."""
        if not isinstance(topics, Mapping):
            return topics
        above = {key: one for key, one in info.data.items() if key in ClickMapping.model_fields}
        return {topic: _inherited(above, table) for topic, table in topics.items()}

    def of_topic(self, topic: str) -> ClickMapping:
        """Return the mapping of a topic or of a file, which is known by its name."""
        return self.topics.get(topic, self)


def _inherited(above: Mapping[str, Any], table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    return {**above, **preset_settings(table.get("preset")), **table}
