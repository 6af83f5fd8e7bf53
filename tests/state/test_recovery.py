import os
import re
import shutil
from pathlib import Path

import pytest

from state import manifest, recovery
from state.errors import DamagedCheckpoint, DamagedPointer, ForeignCheckpoint, StateError
from state.lease import read_owner
from state.manifest import GenerationName
from tests.state.lives import FINGERPRINT, Life, restored_value, value_of

PARTS = ["manifest.json", "shard-000.safetensors", "store.safetensors", "empty.safetensors"]
NEWEST = "0001-000000000003"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three generations with the values 1, 2 and 3, and nobody who holds them."""
    life = Life(tmp_path)
    for value in (1, 2, 3):
        life.commit(value)
    life.end()
    return tmp_path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def overwrite(path: Path) -> None:
    path.write_bytes(b"garbage")


def recovered(directory: Path, generation: int | None = None) -> recovery.Recovered | None:
    return recovery.newest(directory, FINGERPRINT, generation)


def pointer(directory: Path) -> Path:
    return directory / "checkpoints" / "CURRENT"


def one_line(raised: pytest.ExceptionInfo[StateError]) -> str:
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_absent_directory_is_a_fresh_start(tmp_path: Path) -> None:
    assert recovered(tmp_path / "nowhere") is None


def test_the_newest_generation_is_restored_without_a_note(directory: Path) -> None:
    found = recovered(directory)

    assert found is not None
    assert (value_of(found), found.name, found.notes) == (3, GenerationName(1, 3), ())


def test_restored_arrays_can_be_written(directory: Path) -> None:
    found = recovered(directory)

    assert found is not None
    found.sections["shard-000"].arrays["inputs"][:] = 7


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", [flip, truncate, overwrite, os.unlink])
def test_a_damaged_newest_generation_is_passed_over_with_a_note(
    directory: Path, part: str, damage: object
) -> None:
    damage(directory / "checkpoints" / NEWEST / part)

    found = recovered(directory)

    assert found is not None
    assert value_of(found) == 2
    (note,) = found.notes
    assert f"generation {NEWEST!r}" in note
    assert repr(part) in note
    assert "--generation" not in note  # it has been done
    assert "restored '0001-000000000002' instead" in note
    assert "\n" not in note


def test_a_note_says_what_was_expected_and_found(directory: Path) -> None:
    path = directory / "checkpoints" / NEWEST / "shard-000.safetensors"
    size = path.stat().st_size
    truncate(path)

    found = recovered(directory)

    assert found is not None
    assert f"has {size - 2} bytes, manifest says {size}" in found.notes[0]


def test_after_a_fall_back_the_next_commit_and_start_go_on_without_notes(directory: Path) -> None:
    flip(directory / "checkpoints" / NEWEST / "store.safetensors")
    life = Life(directory)
    name = life.commit(4)
    life.end()

    found = recovered(directory)

    assert value_of(life.recovered) == 2
    assert name == GenerationName(2, 4)
    assert found is not None
    assert (value_of(found), found.notes) == (4, ())
    assert found.manifest.parent == GenerationName(1, 2)


def test_a_newest_generation_that_is_gone_is_noted(directory: Path) -> None:
    shutil.rmtree(directory / "checkpoints" / NEWEST)

    found = recovered(directory)

    assert found is not None
    assert value_of(found) == 2
    assert NEWEST in found.notes[0]
    assert "missing" in found.notes[0]


def test_when_all_are_damaged_the_error_lists_them(directory: Path) -> None:
    for path in (directory / "checkpoints").glob("0*/store.safetensors"):
        flip(path)

    with pytest.raises(DamagedCheckpoint, match="no whole generation") as raised:
        recovered(directory)

    told = one_line(raised)
    assert all(f"0001-00000000000{number}" in told for number in (1, 2, 3))
    assert "backup" in told


def test_when_all_are_gone_it_is_an_error_and_no_fresh_start(directory: Path) -> None:
    for path in (directory / "checkpoints").glob("0*"):
        shutil.rmtree(path)

    with pytest.raises(DamagedCheckpoint, match="missing"):
        recovered(directory)


@pytest.mark.parametrize("is_empty", [False, True])
def test_generations_that_are_gone_though_a_term_restored_one_are_no_fresh_start(
    directory: Path, is_empty: bool
) -> None:
    restored_value(directory)
    shutil.rmtree(directory / "checkpoints")
    if is_empty:
        (directory / "checkpoints").mkdir()

    with pytest.raises(DamagedPointer, match="the generations are gone") as raised:
        Life(directory)

    told = one_line(raised)
    assert "term 2 restored '0001-000000000003'" in told
    assert "restore 'checkpoints' from a backup, or empty the state directory" in told
    shutil.rmtree(directory)
    assert restored_value(directory) is None


def test_generations_that_are_gone_under_the_first_term_are_no_fresh_start(
    directory: Path,
) -> None:
    shutil.rmtree(directory / "checkpoints")

    with pytest.raises(DamagedPointer, match=r"as 'OWNER' was written, found none.*are gone"):
        Life(directory)


def test_a_start_that_died_before_it_named_its_owner_is_made_good(directory: Path) -> None:
    (directory / "OWNER").unlink()
    restored_value(directory)
    owner = read_owner(directory)
    restored_value(directory)

    assert owner is not None
    assert read_owner(directory) == owner


def test_starts_that_died_in_their_first_commit_are_followed_by_a_fresh_one(
    tmp_path: Path,
) -> None:
    for term in (1, 2):
        Life(tmp_path).end()
        (tmp_path / "checkpoints" / f"000{term}-000000000001.tmp").mkdir(parents=True)

    assert [restored_value(tmp_path) for _ in range(2)] == [None, None]


def test_a_generation_under_another_name_is_damaged(directory: Path) -> None:
    shutil.rmtree(directory / "checkpoints" / NEWEST)
    os.rename(directory / "checkpoints" / "0001-000000000001", directory / "checkpoints" / NEWEST)

    found = recovered(directory)

    assert found is not None
    assert value_of(found) == 2
    assert "is that of '0001-000000000001'" in found.notes[0]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"garbage", b"\xff\xfe 1\n", b"0001-000000000003\n", b"0001-000000000003 x\n"],
)
@pytest.mark.parametrize("way_out", ["write", "generation"])
def test_a_torn_current_is_an_error_whose_ways_out_work(
    directory: Path, content: bytes, way_out: str
) -> None:
    pointer(directory).write_bytes(content)

    with pytest.raises(DamagedPointer, match=re.escape(repr(content))) as raised:
        recovered(directory)
    told = one_line(raised)
    line = re.search(r"write the line '([^']*)' into it", told)
    number = re.search(r"--generation (\d+)", told)
    assert line
    assert number
    if way_out == "write":
        pointer(directory).write_text(line[1])
        life = Life(directory)
    else:
        life = Life(directory, int(number[1]))
    life.commit(4)
    life.end()

    assert value_of(life.recovered) == 3
    assert restored_value(directory) == 4


def test_an_absent_current_beside_generations_is_an_error_that_says_what_to_write(
    directory: Path,
) -> None:
    pointer(directory).unlink()

    with pytest.raises(DamagedPointer, match="'0001-000000000003 1'"):
        recovered(directory)


def test_a_torn_current_beside_nothing_says_that_nothing_is_left(tmp_path: Path) -> None:
    pointer(tmp_path).parent.mkdir()
    pointer(tmp_path).write_bytes(b"")

    with pytest.raises(DamagedPointer, match="no generation is left"):
        recovered(tmp_path)


def test_a_first_generation_without_current_is_used(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.commit(1)
    life.end()
    pointer(tmp_path).unlink()

    assert restored_value(tmp_path) == 1


def test_a_newer_generation_with_another_parent_than_current_is_not_used(directory: Path) -> None:
    pointer(directory).write_text("0001-000000000001 1\n")

    assert value_of(recovered(directory)) == 2  # the child of 1
    shutil.rmtree(directory / "checkpoints" / "0001-000000000002")
    assert value_of(recovered(directory)) == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_generation_can_be_picked_by_number_wherever_current_points(
    directory: Path, number: int
) -> None:
    life = Life(directory, generation=number)
    life.commit(10)
    life.end()

    assert value_of(life.recovered) == number
    assert restored_value(directory) == 10
    kept = [name.number for name in manifest.generations(directory / "checkpoints")]
    assert kept == [*range(1, number + 1), 4][-3:]


def test_a_damaged_generation_that_was_picked_names_an_older_one(directory: Path) -> None:
    flip(directory / "checkpoints" / NEWEST / "shard-000.safetensors")

    with pytest.raises(DamagedCheckpoint, match="restore an older one with --generation 2"):
        recovered(directory, 3)


def test_a_rollback_holds_before_anything_is_committed_on_it(directory: Path) -> None:
    Life(directory, generation=1).end()

    assert restored_value(directory) == 1


def test_a_number_that_is_not_there_names_those_that_are(directory: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"generation 9 .* found 1, 2, 3; pick one"):
        recovered(directory, 9)


def test_a_picked_generation_that_is_damaged_is_an_error(directory: Path) -> None:
    flip(directory / "checkpoints" / NEWEST / "store.safetensors")

    with pytest.raises(DamagedCheckpoint, match=r"store\.safetensors' has checksum"):
        recovered(directory, 3)


def test_other_settings_are_refused_with_both_values_and_the_way_out(directory: Path) -> None:
    ours = {**FINGERPRINT, "store.dim": 64, "store.hash": "xxh64"}

    with pytest.raises(ForeignCheckpoint) as raised:
        recovery.newest(directory, ours)

    told = one_line(raised)
    assert "store.dim is 64, the state has 2" in told
    assert "store.hash is 'xxh64', the state has None" in told
    assert "training.seed" not in told
    assert "set them back" in told


def test_tuples_in_settings_are_no_difference(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.checkpoints.commit(
        {}, offsets=manifest.Offsets(), fingerprint={"types": ("view", "cart")}, settings={},
        facts={}, created_ms=0,
    )  # fmt: skip
    life.end()

    assert recovery.newest(tmp_path, {"types": ("view", "cart")}) is not None


def test_a_newer_format_is_no_damage_to_pass_over(directory: Path) -> None:
    path = directory / "checkpoints" / NEWEST / "manifest.json"
    path.write_bytes(manifest.seal({**manifest.unseal(path.read_bytes()), "format": 2}))

    with pytest.raises(DamagedCheckpoint, match=f"{NEWEST}.* written by a newer livevec"):
        recovered(directory)


def test_load_returns_one_named_generation(directory: Path) -> None:
    assert value_of(recovery.load(directory, GenerationName(1, 2))) == 2


def test_load_refuses_a_damaged_generation(directory: Path) -> None:
    flip(directory / "checkpoints" / NEWEST / "store.safetensors")

    with pytest.raises(DamagedCheckpoint, match="checksum"):
        recovery.load(directory, GenerationName(1, 3))
    with pytest.raises(DamagedCheckpoint, match=r"'manifest\.json' is missing"):
        recovery.load(directory, GenerationName(1, 9))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_we_may_not_read_is_told_and_not_passed_over(directory: Path) -> None:
    path = directory / "checkpoints" / NEWEST / "store.safetensors"
    path.chmod(0)

    with pytest.raises(StateError, match="permissions") as raised:
        recovered(directory)

    assert not isinstance(raised.value, DamagedCheckpoint)


def test_lost_terms_do_not_lose_the_generations(directory: Path) -> None:
    shutil.rmtree(directory / "terms")

    life = Life(directory)
    life.end()

    assert value_of(life.recovered) == 3
    assert life.tenure.term == 2
