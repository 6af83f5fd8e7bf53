"""Known kinds of clicks: each preset by name, as the settings that it stands for.

flat         a JSON object, or a line of CSV, with its fields at the top
segment      `track` calls of Segment: https://segment.com/docs/connections/spec/track/
             and what all calls have: https://segment.com/docs/connections/spec/common/
snowplow     enriched events, as TSV or as the JSON of the analytics SDKs:
             https://docs.snowplow.io/docs/fundamentals/canonical-event/
cloudevents  CloudEvents 1.0, structured or binary; the item and who clicked it are in its data:
             https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["flat", "segment", "snowplow", "cloudevents"]

_NONE = {"only": {}, "type": "", "types": {}, "weight": "", "event_id": ""}

# Each names every field of a click, so that nothing of another mapping is left in it.
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "flat": {
        "format": "json",
        "user": "user_id",
        "item": "item_id",
        "time": "ts",
        "time_unit": "ms",
        "session": "session_id",
        **_NONE,
    },
    "segment": {
        "format": "json",
        "user": ["userId", "anonymousId"],
        "item": "properties.product_id",
        "time": "timestamp",
        "time_unit": "iso8601",
        "session": "",
        **_NONE,
        "only": {"type": "track"},
        "type": "event",
        "event_id": "messageId",
    },
    "snowplow": {
        "format": "snowplow",
        "user": ["domain_userid", "user_id", "network_userid"],
        "item": "page_urlpath",
        "time": ["derived_tstamp", "collector_tstamp"],
        "time_unit": "iso8601",
        "session": "domain_sessionid",
        **_NONE,
        "only": {"event": "page_view"},
        "type": ["event_name", "event"],
        "event_id": "event_id",
    },
    "cloudevents": {
        "format": "cloudevents",
        "user": "data.user_id",
        "item": "data.item_id",
        "time": "time",
        "time_unit": "iso8601",
        "session": "data.session_id",
        **_NONE,
        "type": "type",
        "event_id": ["source", "id"],
    },
}


def preset_settings(name: Any) -> Mapping[str, Any]:
    """Return the settings of a preset; of a name that is none, none."""
    known = {str(preset): settings for preset, settings in PRESETS.items()}
    return known.get(name, {}) if isinstance(name, str) else {}


def as_toml(preset: Preset) -> str:
    """Return the preset as the section of a configuration file that says the same.

    >>> as_toml("flat").splitlines()[:3]
    ['# preset = "flat"', '[clicks]', 'format = "json"']
    """
    lines = [f"{key} = {_toml_value(value)}" for key, value in PRESETS[preset].items()]
    return "\n".join((f'# preset = "{preset}"', "[clicks]", *lines))


def _toml_value(value: Any) -> str:
    """Write a string, a list of strings or a flat table; such strings are as in JSON."""
    if isinstance(value, Mapping):
        members = ", ".join(f"{key} = {_toml_value(one)}" for key, one in value.items())
        return f"{{{members}}}"
    return json.dumps(value)
