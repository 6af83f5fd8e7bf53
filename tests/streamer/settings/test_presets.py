"""A preset is what its TOML says, and says everything of a click's fields."""

import tomllib

import pytest
from typer.testing import CliRunner

from streamer import cli
from streamer.settings.clicks import ClickMapping
from streamer.settings.presets import PRESETS, as_toml

# How a number counts and where schemas are is the same for every kind of click.
NO_FIELDS = {"preset", "weight_log", "weight_range", "weight_default", "schema_registry"}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_toml_of_a_preset_is_the_preset(preset):
    section = tomllib.loads(as_toml(preset))["clicks"]

    assert ClickMapping(**section, preset="flat") == ClickMapping(preset=preset).model_copy(
        update={"preset": "flat"}
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_no_field_to_another_mapping(preset):
    assert set(PRESETS[preset]) == set(ClickMapping.model_fields) - NO_FIELDS


def test_the_flat_preset_is_the_default():
    assert ClickMapping(preset="flat") == ClickMapping()


def test_the_command_prints_each_preset_or_one():
    run = CliRunner().invoke

    every = run(cli.app, ["presets"]).stdout
    one = run(cli.app, ["presets", "segment"]).stdout

    assert [part.strip() for part in every.split("\n\n")] == [as_toml(one) for one in PRESETS]
    assert one == as_toml("segment") + "\n"
