import json
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state import manifest as module
from state.durable import Part
from state.errors import DamagedCheckpoint
from state.manifest import GenerationName, Manifest
from state.offsets import Offsets, Partition

MANIFEST = Manifest(
    name=GenerationName(3, 42),
    parent=GenerationName(2, 41),
    offsets=Offsets({Partition("clicks", 0): 918273, Partition("clicks", 1): 5}),
    fingerprint={"store.dim": 64},
    settings={"store": {"dim": 64}, "clicks": {"types": {"view": 1.0}}},
    facts={"space_id": "ä", "accepted": 2**60},
    created_ms=1_700_000_000_000,
    parts=(Part("shard-000.safetensors", 5, "ab"), Part("store.safetensors", 0, "cd")),
)


def test_a_name_sorts_and_reads_as_the_directory_it_is() -> None:
    assert str(GenerationName(3, 42)) == "0003-000000000042"
    assert GenerationName.parse("0003-000000000042") == (3, 42)


@given(st.integers(1, 10**6), st.integers(0, 10**14))
@settings(max_examples=50, deadline=None)
def test_a_name_survives_parsing(term: int, number: int) -> None:
    assert GenerationName.parse(str(GenerationName(term, number))) == (term, number)


@pytest.mark.parametrize(
    "text",
    ["", "CURRENT", "0003-42", "3-000000000042", "0003-000000000042.tmp", "0003-000000000042\n",
     "00003-000000000042", "٠٠٠٣-000000000042"],
)  # fmt: skip
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="expected a generation like"):
        GenerationName.parse(text)


def test_a_manifest_survives_as_json() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert json.loads(MANIFEST.to_json())["offsets"] == [["clicks", 0, 918273], ["clicks", 1, 5]]
    assert (MANIFEST.term, MANIFEST.number) == (3, 42)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_flipped_byte_of_a_manifest_changes_what_it_says(data: st.DataObject) -> None:
    content = bytearray(MANIFEST.to_json())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))

    found = MANIFEST  # what is left is white space, or another spelling of the same
    with suppress(ValueError):
        found = Manifest.from_json(bytes(content))

    assert found == MANIFEST


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b'{"format": 2}'])
def test_garbage_is_damage_and_never_a_newer_format(junk: bytes) -> None:
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(junk)


def test_a_sealed_object_that_is_no_manifest_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="'parent'"):
        Manifest.from_json(module.seal({"format": 1, "term": 3}))


def test_a_newer_format_says_that_a_newer_livevec_wrote_it() -> None:
    fields = {**module.unseal(MANIFEST.to_json()), "format": 2}

    with pytest.raises(DamagedCheckpoint, match="format 2 was written by a newer livevec"):
        Manifest.from_json(module.seal(fields))


@pytest.mark.parametrize("fact", [float("inf"), {1, 2}, b"bytes"])
def test_what_is_not_json_is_refused_before_it_is_written(fact: object) -> None:
    with pytest.raises(ValueError, match=re.compile("json", re.IGNORECASE)):
        module.seal({"facts": fact})
