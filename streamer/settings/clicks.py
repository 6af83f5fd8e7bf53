"""Which field of a record is what of a click: the mapping of a topic."""

import string
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from streamer.settings.base import NotNegative, Settings
from streamer.settings.presets import Preset, preset_settings


def listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that a setting holds: none, one or several.

    >>> listed(""), listed("user_id"), listed(("userId", "anonymousId"))
    ((), ('user_id',), ('userId', 'anonymousId'))
    """
    return names if isinstance(names, tuple) else (names,) if names else ()


def template_parts(name: str) -> tuple[tuple[str, str | None], ...]:
    """Return a composed id as texts, each with the field that follows it, if one does.

    Raises `ValueError` where the braces are not those of fields.

    >>> template_parts("{type}:{page.path}")
    (('', 'type'), (':', 'page.path'))
    """
    parts = []
    for text, field, spec, conversion in string.Formatter().parse(name):
        if field == "" or spec or conversion:
            msg = f"expected names of fields in braces, as in {{type}}:{{page}}, found {name!r}"
            raise ValueError(msg)
        parts.append((text, field))
    return tuple(parts)


def is_template(name: str) -> bool:
    """Tell whether an item's id is composed of fields, rather than one of them."""
    return "{" in name or "}" in name


def _names(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    is_list = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if not is_list or not all(value):
        msg = f"expected a field's name, or a list of names, found {value!r}"
        raise ValueError(msg)
    return tuple(value) if len(value) > 1 else "".join(value)


def _at_least_one(value: Any) -> str | tuple[str, ...]:
    names = _names(value)
    if not names:
        msg = "expected a field's name, or a list of names, found none"
        raise ValueError(msg)
    return names


Names = Annotated[str | tuple[str, ...], BeforeValidator(_at_least_one)]
OptionalNames = Annotated[str | tuple[str, ...], BeforeValidator(_names)]
# Products of two of them are numbers that float32 holds.
Weight = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]


class ClickMapping(Settings):
    """What the fields of a click are called, and what it weighs.

    A field's name may lead into nested objects by dots; a key that has those dots itself goes
    first. Of several names the first that is there counts.
    """

    preset: Preset = Field("flat", description="what is not set otherwise; see `livevec presets`")
    format: Literal["json", "avro", "snowplow", "cloudevents"] = Field(
        "json",
        description="of a record's value; files say in source.files.format whether they are CSV",
    )
    user: Names = Field("user_id", description="the user's field, or several, the first that is")
    item: Names = Field(
        "item_id", description='the item\'s field, or an id composed of several: "{type}:{page}"'
    )
    time: Names = Field("ts", description="the event time's field")
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] = Field(
        "ms", description="the event time's unit"
    )
    session: OptionalNames = Field(
        "session_id",
        description="the session's field; where a click has none, its user is its session",
    )
    only: Mapping[str, Names] = Field(
        default_factory=dict,
        description="values, by field, that a click has; other records are filtered (other_kind)",
    )
    type: OptionalNames = Field("", description="the event type's field; without one, no types")
    types: Mapping[str, Weight] = Field(
        default_factory=dict,
        description="the weight of each type; others are filtered (unlisted_type); if none is"
        " listed, each type weighs 1",
    )
    weight: OptionalNames = Field(
        "", description="a number's field (rating, seconds, quantity) that multiplies the weight"
    )
    weight_log: bool = Field(False, description="take log(1 + number), before it is clipped")
    weight_range: tuple[Weight, Weight] = Field(
        (0.1, 10.0), description="the number is clipped to it, then multiplied with the type's"
    )
    weight_default: NotNegative | None = Field(
        None, description="the number of a click that has none, else a dead letter (bad_weight)"
    )
    event_id: OptionalNames = Field(
        "", description="the field that tells a click from all others; several are joined"
    )
    schema_registry: str = Field(
        "", repr=False, description="of format avro: http://host:8081, or with user:password@"
    )

    @model_validator(mode="before")
    @classmethod
    def _under_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {**preset_settings(values.get("preset")), **values}

    @field_validator("item")
    @classmethod
    def _composed_of_fields(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in listed(names):
            if is_template(name) and not any(field for _, field in template_parts(name)):
                msg = f"expected a field in braces, found {name!r}"
                raise ValueError(msg)
        return names

    @field_validator("types")
    @classmethod
    def _of_a_type(cls, types: Mapping[str, float], info: ValidationInfo) -> Mapping[str, float]:
        if types and info.data.get("type") == "":
            msg = "expected the field of the types in clicks.type, found none"
            raise ValueError(msg)
        return types

    @field_validator("weight_range")
    @classmethod
    def _in_order(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            msg = f"expected the smaller weight first, found {list(ends)}"
            raise ValueError(msg)
        return ends

    @field_validator("schema_registry")
    @classmethod
    def _reachable(cls, url: str, info: ValidationInfo) -> str:
        """Check the address without saying it: it may hold a password."""
        if info.data.get("format") == "avro" and not url:
            msg = "expected the address of the registry beside format avro, found none"
            raise ValueError(msg)
        if url and not _is_address(url):
            msg = "expected http://host:port or https://host:port, found something else"
            raise ValueError(msg)
        return url.rstrip("/")

    @field_serializer("schema_registry")
    def _without_secrets(self, url: str) -> str:
        parts = _split(url)
        if parts is None or "@" not in parts.netloc:
            return url
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"***@{host}").geturl()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is read here, and may be no number
    except ValueError:
        return None
    return parts


def _is_address(url: str) -> bool:
    parts = _split(url)
    return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
