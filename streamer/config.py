"""Frozen settings from TOML, then the environment (`LIVEVEC_<SECTION>__<KEY>`).

Every setting has a default, a unit in its name and a help text. Unknown keys, wrong types and
impossible combinations are errors that name their path, and all of them are reported at once.
A setting marked `fixed` gives the state its meaning: it is part of the manifest's fingerprint
and cannot change over one state directory.
"""

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from streamer.errors import ConfigError

ENV_PREFIX = "LIVEVEC_"
ENV_SECTION_END = "__"

# 300 years in seconds: in milliseconds, sums of several still fit 64 bits.
LARGEST = 1e10
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1 << 53)]
Share = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _fixed(default: Any, help_text: str) -> Any:
    return Field(default, description=help_text, json_schema_extra={"fixed": True})


class Settings(BaseModel):
    """A section: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


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
    connect_timeout_seconds: Positive = Field(10.0, description="how long a start may take")
    client: Mapping[str, Any] = Field(
        default_factory=dict, description="passed on to kafka-python by its own names"
    )


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


class Sessions(Settings):
    """Session windows, in event time."""

    gap_seconds: Positive = _fixed(1800.0, "inactivity that ends a window, inclusive")
    emission: Literal["early", "on_close"] = _fixed(
        "early", "train a click when it arrives, or when its window closes"
    )
    out_of_orderness_seconds: NotNegative = Field(
        10.0, description="how far the watermark stays behind the largest event time"
    )
    lateness_seconds: NotNegative = Field(
        300.0, description="how long a window stays open behind the watermark, after its gap"
    )
    max_jump_seconds: Positive = Field(
        86400.0,
        description="a click further ahead of its partition is a dead letter, until 20 agree",
    )
    max_kept: Count = Field(200, description="early: clicks of a window kept as neighbours")
    max_trained: Count = Field(2000, description="clicks of a window trained; beyond it is a bot")
    max_open: Count = Field(1_000_000, description="open windows in memory; the oldest go first")
    idle_timeout_seconds: Positive = Field(
        60.0, description="when a partition that has nothing to read lets others close its windows"
    )

    @model_validator(mode="after")
    def _jump_beyond_disorder(self) -> Self:
        if self.max_jump_seconds < self.out_of_orderness_seconds:
            msg = (
                "expected max_jump_seconds of at least out_of_orderness_seconds "
                f"{self.out_of_orderness_seconds:g}, found {self.max_jump_seconds:g}"
            )
            raise ValueError(msg)
        return self


class Training(Settings):
    """Skip-gram with negative sampling (ARCHITECTURE.md, Semantics)."""

    dim: Annotated[int, Field(ge=2, le=1024)] = _fixed(64, "length of a vector")
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = _fixed(1, "of every draw")
    noise_table_size: Annotated[int, Field(ge=1, le=1 << 26)] = _fixed(
        1 << 18, "recent clicks from which negatives are drawn"
    )
    popularity_half_lives: tuple[Positive, Positive] = _fixed(
        (3000.0, 50000.0), "fast and slow, in accepted clicks"
    )
    window: Annotated[int, Field(ge=1, le=64)] = Field(
        5, description="neighbours of a click on each side"
    )
    negatives: Annotated[int, Field(ge=1, le=256)] = Field(
        10, description="drawn for each click, shared by its pairs"
    )
    passes: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="updates of a click, each with fresh negatives"
    )
    learning_rate: Positive = Field(0.2, description="eta of row-wise AdaGrad")
    epsilon: Positive = Field(1e-8, description="added to AdaGrad's accumulator")


class Store(Settings):
    """Rows, bounded by configuration."""

    directory: Path = Field(Path("livevec-state"), description="where all state lives")
    max_items: Annotated[int, Field(ge=1, le=1 << 30)] = _fixed(
        1_000_000, "items with a row; clicks on further new items are filtered (store_full)"
    )
    n_shards: Annotated[int, Field(ge=1, le=1024)] = _fixed(4, "blocks of rows")


class Checkpoint(Settings):
    """Generations: what a crash falls back to."""

    interval_seconds: Positive = Field(30.0, description="commit at least this often")
    every_clicks: Count = Field(250_000, description="commit after this many clicks, too")
    retain: Annotated[int, Field(ge=2)] = Field(3, description="generations kept")
    drain_seconds: Positive = Field(
        20.0, description="how long a SIGTERM may take; shorter than the platform's grace"
    )
    max_uncommitted: Count = Field(
        10_000_000, description="clicks not yet durable, beyond which reading pauses"
    )

    @model_validator(mode="after")
    def _room_to_commit(self) -> Self:
        if self.max_uncommitted < self.every_clicks:
            msg = (
                f"expected max_uncommitted of at least every_clicks {self.every_clicks}, "
                f"found {self.max_uncommitted}"
            )
            raise ValueError(msg)
        return self


class Index(Settings):
    """FAISS indexes, built beside the stream from a committed generation."""

    kinds: tuple[Literal["ivf", "lsh"], ...] = Field(
        ("ivf", "lsh"), min_length=1, description="built into every version"
    )
    interval_seconds: Positive = Field(120.0, description="build at least this often")
    every_clicks: Count = Field(500_000, description="build after this many clicks, too")
    recall_target: Share = Field(
        0.97, description="of recall@10, click-weighted; nprobe and k_factor are chosen to meet it"
    )
    lsh_bits: Annotated[int, Field(ge=8, le=8192)] = Field(512, description="bits of an LSH code")
    min_rows: Annotated[int, Field(ge=256)] = Field(
        1000, description="fewer items than this get an exact index instead"
    )
    retain: Annotated[int, Field(ge=2)] = Field(3, description="versions kept")


class Publish(Settings):
    """Where versions go."""

    directory: Path | None = Field(None, description="default: published/ in store.directory")


class Serving(Settings):
    """The query service."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8080, description="port to listen on; 0 takes a free one")
    kind: Literal["ivf", "lsh"] = Field("ivf", description="which index of a version answers")
    recall_floor: Share = Field(
        0.8, description="a version whose click-weighted recall@10 is below is refused"
    )
    refresh_seconds: Positive = Field(0.5, description="how often a new version is looked for")
    max_limit: Count = Field(1000, description="results of one query at most")
    popularity: NotNegative = Field(0.1, description="b of the session query's score")
    session_items: Count = Field(5, description="last items of a session that make its query")
    session_decay: Share = Field(0.4, description="lambda: weight of an item before the last")
    candidates: Count = Field(
        200, description="nearest and most popular items that are re-scored at least"
    )
    shrinkage: NotNegative = Field(
        1.0, description="kappa of neighbours: a cosine counts n/(n + kappa), n the item's clicks"
    )


class Metrics(Settings):
    """The daemon's own HTTP: /metrics, /healthz, /readyz."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(9108, description="port to listen on; 0 takes a free one")
    is_enabled: bool = Field(True, description="listen at all")
    stalled_seconds: Positive = Field(
        30.0, description="without a turn of the loop for so long, /healthz fails"
    )


class Log(Settings):
    """Structured lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level")
    format: Literal["console", "json"] = Field("console", description="for people or machines")


class Config(BaseSettings):
    """All settings of livevec."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_SECTION_END,
        validate_default=True,
    )

    source: Source = Source()
    clicks: Clicks = Clicks()
    sessions: Sessions = Sessions()
    training: Training = Training()
    store: Store = Store()
    checkpoint: Checkpoint = Checkpoint()
    index: Index = Index()
    publish: Publish = Publish()
    serving: Serving = Serving()
    metrics: Metrics = Metrics()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file; nothing else is read."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @property
    def published(self) -> Path:
        """Where versions are published."""
        return self.publish.directory or self.store.directory / "published"

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings that give the state its meaning, by path."""
        return {
            f"{section}.{key}": value
            for section, key, value in _fixed_settings(self.model_dump(mode="json"))
        }


def _fixed_settings(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for section, info in Config.model_fields.items():
        assert info.annotation is not None
        for key, field in info.annotation.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("fixed"):
                yield section, key, values[section][key]


def load(path: Path | None, **overrides: Mapping[str, Any]) -> Config:
    """Read settings from `path`, then the environment; `overrides` go below both.

    Relative paths in a file are relative to the working directory.

    Raises `ConfigError` that lists every fault with its path.
    """
    values: dict[str, Any] = {name: dict(section) for name, section in overrides.items()}
    if path is not None:
        for section, settings in _read_toml(path).items():
            if isinstance(settings, Mapping):
                values[section] = {**values.get(section, {}), **settings}
            else:
                values[section] = settings
    faults = list(_unknown_environment())
    try:
        config = Config(**values)
    except ValidationError as error:
        with_faulty_members = {one["loc"][:-1] for one in error.errors()}
        faults += [_fault(e) for e in error.errors() if e["loc"] not in with_faulty_members]
        raise ConfigError(*faults) from error
    except SettingsError as error:
        given = ", ".join(one for one in os.environ if re.match(f"{ENV_PREFIX}.*__", one))
        fault = f"environment: expected JSON for each list or section in {given}, for instance "
        raise ConfigError(*faults, f"{fault}{ENV_PREFIX}INDEX__KINDS='[\"ivf\"]'") from error
    if faults:
        raise ConfigError(*faults)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path}: expected a configuration file, found nothing there"
        raise ConfigError(msg) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{path}: expected a TOML file, found: {error}"
        raise ConfigError(msg) from error


def _unknown_environment() -> Iterator[str]:
    """Yield a fault for each variable that looks like a setting and is none.

    pydantic-settings passes over a misspelt section in the environment without a word.
    """
    for name in os.environ:
        if not name.startswith(ENV_PREFIX) or ENV_SECTION_END not in name:
            continue
        section = name.removeprefix(ENV_PREFIX).split(ENV_SECTION_END)[0].lower()
        if section not in Config.model_fields:
            known = ", ".join(f"{ENV_PREFIX}{one.upper()}__" for one in Config.model_fields)
            yield f"environment {name}: no such section; expected one of {known}"


def _fault(error: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "configuration"
    if error["type"] == "extra_forbidden":
        return f"{path}: no such setting"
    if error["type"] == "missing":
        return f"{path}: expected a value, found none"
    found = error["input"]
    if isinstance(found, float) and math.isnan(found):
        found = "nan"
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{path}: {reason}"
    return f"{path}: {reason[0].lower()}{reason[1:]}, found {found!r}"
