"""Frozen settings from TOML, then the environment (`LIVEVEC_<SECTION>__<KEY>`).

Every setting has a default, a unit in its name and a help text. Unknown keys, wrong types and
impossible combinations are errors that name their path, and all of them are reported at once.
A setting marked `fixed` gives the state its meaning: it is part of the manifest's fingerprint
and cannot change over one state directory.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from streamer.errors import ConfigError
from streamer.settings.dead_letters import DeadLetters
from streamer.settings.masking import MASK, is_secret, masked
from streamer.settings.process import Log, Metrics, Serving
from streamer.settings.sources import Clicks, Source
from streamer.settings.stream import Checkpoint, Index, Publish, Sessions, Store, Training
from streamer.settings.toml import read_toml

ENV_PREFIX = "LIVEVEC_"
ENV_SECTION_END = "__"


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
    dead_letters: DeadLetters = DeadLetters()
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

    @model_validator(mode="after")
    def _topics_are_read(self) -> Self:
        topics = set(self.source.kafka.topics) if self.source.kafka else set()
        names = {path.name for path in self.source.files.paths} if self.source.files else set()
        unread = sorted(set(self.clicks.topics) - topics - names)
        if unread:
            msg = (
                "clicks.topics: expected topics of source.kafka.topics, or names of files of"
                f" source.files.paths, found {', '.join(map(repr, unread))}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _letters_have_a_broker(self) -> Self:
        topic, kafka = self.dead_letters.topic, self.source.kafka
        if topic is None or self.dead_letters.bootstrap_servers is not None:
            return self
        if kafka is None:
            msg = (
                f"dead_letters.topic: expected a broker for topic {topic!r}, found neither"
                " source.kafka nor dead_letters.bootstrap_servers"
            )
            raise ValueError(msg)
        if topic in kafka.topics:
            msg = (
                f"dead_letters.topic: expected another topic than clicks are read from, found"
                f" {topic!r} in source.kafka.topics, too"
            )
            raise ValueError(msg)
        return self

    @property
    def published(self) -> Path:
        """Where versions are published."""
        return self.publish.directory or self.store.directory / "published"

    def public(self) -> dict[str, Any]:
        """Return all settings as they may be printed and stored: without what is secret."""
        shown: dict[str, Any] = masked(self.model_dump(mode="json"))
        return shown

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
        with_faulty_members = {one["loc"][:-1] for one in error.errors() if one["loc"]}
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
        return read_toml(path, "a configuration file")
    except ValueError as error:
        raise ConfigError(str(error)) from error


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
    reason = reason.replace("a valid tuple", "a list").replace("Tuple", "List")
    if error["type"] == "value_error":
        return f"{path}: {reason}" if error["loc"] else str(reason)
    return f"{path}: {reason[0].lower()}{reason[1:]}, found {_shown(error['loc'], found)!r}"


def _shown(path: tuple[int | str, ...], found: Any) -> Any:
    """Return a value as a fault may quote it: it may be a secret in the wrong place."""
    is_private = any(is_secret(str(part)) or part == "client" for part in path)
    return MASK if is_private else masked(found)
