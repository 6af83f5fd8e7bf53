import hashlib
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from state import durable
from state.append_log import AppendLog
from state.durable import Part
from state.errors import NoSpace, StateError, Superseded
from state.sections import Section
from tests.state.children import run_in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

DTYPES = ["f4", "f8", "i8", "u8", "i4", "u1", "?"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0))
)


def _limit_files_to(n_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_a_checksum_is_blake2b_of_128_bits() -> None:
    told = subprocess.run(["b2sum", "-l", "128"], input=b"abc", capture_output=True, check=False)

    assert durable.checksum(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    if told.returncode == 0:
        assert told.stdout.split()[0].decode() == durable.checksum(b"abc")


def test_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    durable.write(tmp_path / "CURRENT", b"a long first line\n")

    durable.write(tmp_path / "CURRENT", b"short\n")

    assert (tmp_path / "CURRENT").read_bytes() == b"short\n"
    assert os.listdir(tmp_path) == ["CURRENT"]


def test_a_part_is_vouched_for_by_size_and_checksum(tmp_path: Path) -> None:
    part = durable.write_part(tmp_path / "rows", b"12345")

    assert part == Part("rows", 5, durable.checksum(b"12345"))
    assert durable.read_part(tmp_path, part) == b"12345"


def test_a_part_larger_than_a_chunk_is_written_whole(tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(durable._CHUNK_BYTES + 12345)

    part = durable.write_part(tmp_path / "rows", memoryview(content))

    assert part == Part("rows", len(content), durable.checksum(content))
    assert durable.read_part(tmp_path, part) == content


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"1234", "part 'rows' has 4 bytes, manifest says 5"),
        (b"12344", f"has checksum {durable.checksum(b'12344')}, manifest says"),
        (None, "part 'rows' of 5 bytes is missing"),
    ],
)
def test_a_damaged_part_says_what_was_expected_and_found(
    tmp_path: Path, content: bytes | None, fault: str
) -> None:
    part = durable.write_part(tmp_path / "rows", b"12345")
    (tmp_path / "rows").unlink()
    if content is not None:
        (tmp_path / "rows").write_bytes(content)

    with pytest.raises(ValueError, match=fault.replace("(", r"\(")):
        durable.read_part(tmp_path, part)


@given(st.dictionaries(st.text("abcxyz_", min_size=1), ARRAYS, max_size=4), JSON)
@settings(max_examples=60, deadline=None)
def test_a_section_survives_encoding_bit_by_bit(
    arrays: dict[str, np.ndarray], value: object
) -> None:
    section = Section(arrays, {"value": value})

    restored = durable.decode_section(durable.encode_section(section))

    assert restored.values == section.values
    assert restored.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        found = restored.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert found.flags.writeable
        assert found.flags.c_contiguous
        assert found.flags.aligned


def test_an_empty_section_survives_encoding() -> None:
    assert durable.decode_section(durable.encode_section(Section())) == Section()


def test_a_transposed_array_is_encoded_by_its_values() -> None:
    array = np.arange(6, dtype="i8").reshape(2, 3).T

    restored = durable.decode_section(durable.encode_section(Section({"a": array})))

    assert restored.arrays["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_section_written_is_its_encoding(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype="u8").reshape(2, 3).T, "n": np.zeros((0, 4), "f4")}
    section = Section(arrays, {"x": "é"})

    part = durable.write_section(tmp_path / "store", section)

    assert durable.read_part(tmp_path, part) == durable.encode_section(section)


def test_another_reader_of_the_format_reads_a_section(tmp_path: Path) -> None:
    durable.write_section(tmp_path / "s", Section({"a": np.arange(3, dtype="i4")}, {"x": 1}))

    with safe_open(tmp_path / "s", "np") as opened:
        assert opened.get_tensor("a").tolist() == [0, 1, 2]
        assert opened.metadata() == {"values": '{"x": 1}'}


def test_an_array_that_the_format_has_no_name_for_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"'ids': expected one of .* found <U3"):
        durable.encode_section(Section({"ids": np.array(["abc"])}))


def test_restored_arrays_share_nothing() -> None:
    content = durable.encode_section(Section({"a": np.zeros(4, "f4")}))
    durable.decode_section(content).arrays["a"][:] = 1

    assert not durable.decode_section(content).arrays["a"].any()


def test_equal_sections_give_equal_bytes_in_whatever_order_they_were_filled() -> None:
    a, b = np.ones(3, "f4"), np.ones(3, "i8")

    assert durable.encode_section(Section({"a": a, "b": b})) == durable.encode_section(
        Section({"b": b, "a": a})
    )


@pytest.mark.parametrize("junk", [b"", b"abc", b"\xff" * 99, b"\x02\0\0\0\0\0\0\0{}", b"\0" * 99])
def test_bytes_that_are_no_section_are_a_value_error(junk: bytes) -> None:
    with pytest.raises(ValueError, match="expected a section"):
        durable.decode_section(junk)


def test_values_that_are_no_json_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        durable.encode_section(Section(values={"watermark": float("inf")}))


def test_a_full_disk_is_no_space_and_leaves_the_old_file_alone(tmp_path: Path) -> None:
    durable.write(tmp_path / "CURRENT", b"old")

    def body() -> None:
        _limit_files_to(1000)
        for attempt in (durable.write, durable.write_part):
            with pytest.raises(NoSpace, match="no space left"):
                attempt(tmp_path / ("CURRENT" if attempt is durable.write else "p"), b"x" * 2000)
        durable.write(tmp_path / "next", b"y" * 1000)

    assert run_in_child(body) == 0
    assert sorted(os.listdir(tmp_path)) == ["CURRENT", "next"]
    assert (tmp_path / "CURRENT").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_device_without_space_is_no_space() -> None:
    with durable.failures(Path("/dev/full")):
        descriptor = os.open("/dev/full", os.O_WRONLY)

    with pytest.raises(NoSpace), durable.failures(Path("/dev/full")):
        durable.write_all(descriptor, memoryview(b"x"))
    os.close(descriptor)


def test_a_directory_is_renamed_whole(tmp_path: Path) -> None:
    durable.make_directory(tmp_path / "a" / "1.tmp")
    durable.write_part(tmp_path / "a" / "1.tmp" / "part", b"x")

    durable.rename_directory(tmp_path / "a" / "1.tmp", tmp_path / "a" / "1")

    assert [path.name for path in durable.entries(tmp_path / "a")] == ["1"]
    assert (tmp_path / "a" / "1" / "part").read_bytes() == b"x"


def test_a_removal_that_dies_half_way_leaves_only_a_temporary(tmp_path: Path) -> None:
    for name in ("part-1", "part-2"):
        durable.make_directory(tmp_path / "generation")
        durable.write_part(tmp_path / "generation" / name, b"x")

    def body() -> None:
        durable.shutil.rmtree = lambda path: os._exit(7)
        durable.remove_tree(tmp_path / "generation")

    assert run_in_child(body) == 7
    (left,) = durable.entries(tmp_path)
    assert left.suffix == durable.TEMPORARY
    durable.collect_temporaries(tmp_path, lambda: None)
    assert durable.entries(tmp_path) == []


def test_a_file_where_a_directory_should_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")

    for path in (tmp_path / "state", tmp_path / "state" / "terms" / "x"):
        with pytest.raises(StateError, match="expected a directory, found a file") as raised:
            durable.make_directory(path)
        assert "\n" not in str(raised.value)


def test_a_place_that_refuses_us_is_told_in_one_line() -> None:
    with pytest.raises(StateError, match="'/proc/nowhere'") as raised:
        durable.make_directory(Path("/proc/nowhere"))

    assert "\n" not in str(raised.value)


def test_of_two_that_create_a_locked_file_one_wins_and_holds_it(tmp_path: Path) -> None:
    ours = durable.create_locked(tmp_path / "0001", b"ours")

    with pytest.raises(FileExistsError):
        durable.create_locked(tmp_path / "0001", b"theirs")

    assert durable.lock(tmp_path / "0001") is None
    assert [path.name for path in durable.entries(tmp_path)] == ["0001"]
    os.close(ours)
    again = durable.lock(tmp_path / "0001")
    assert again is not None
    os.close(again)


def test_a_log_is_cut_back_to_the_committed_length_and_goes_on_from_there(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "letters" / "dead.jsonl")
    log.append(b"one\n")
    committed = log.sync()
    log.append(b"torn")
    log.close()
    log.close()

    restored = AppendLog(tmp_path / "letters" / "dead.jsonl")
    assert restored.truncate_to(committed)
    restored.append(b"two\n")

    assert restored.sync() == 8
    assert (tmp_path / "letters" / "dead.jsonl").read_bytes() == b"one\ntwo\n"
    restored.close()


def test_a_log_shorter_than_committed_is_not_filled_up(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "dead")
    log.append(b"1")

    assert not log.truncate_to(100)
    assert log.sync() == 1
    log.close()


@pytest.mark.parametrize("committed", [0, 4, 8, 100])
def test_a_log_that_was_replaced_by_a_copy_is_out_of_reach_of_who_had_it_open(
    tmp_path: Path, committed: int
) -> None:
    paused = AppendLog(tmp_path / "dead")
    paused.append(b"one\ntwo\n")
    successor = AppendLog(tmp_path / "dead")

    is_whole = successor.replace_by_copy(committed)
    paused.append(b"late\n")
    paused.truncate_to(1)
    successor.append(b"new\n")

    kept = min(committed, 8)
    assert is_whole == (committed <= 8)
    assert (tmp_path / "dead").read_bytes() == b"one\ntwo\n"[:kept] + b"new\n"
    assert successor.sync() == kept + 4
    assert os.listdir(tmp_path) == ["dead"]
    paused.close()
    successor.close()


def test_of_several_that_create_a_file_the_first_is_right(tmp_path: Path) -> None:
    durable.create(tmp_path / "OWNER", b"first")

    with pytest.raises(FileExistsError):
        durable.create(tmp_path / "OWNER", b"second")

    assert (tmp_path / "OWNER").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["OWNER"]


@pytest.mark.parametrize("name", ["generation", "generation.tmp"])
def test_what_somebody_else_is_removing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    durable.remove_tree(path)
    _filled(path)
    rmtree = durable.shutil.rmtree

    def removed_by_another(doomed: Path) -> None:
        rmtree(doomed)
        rmtree(doomed)

    monkeypatch.setattr(durable.shutil, "rmtree", removed_by_another)
    durable.remove_tree(path)

    assert os.listdir(tmp_path) == []


def test_a_temporary_that_somebody_writes_into_is_left_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _filled(tmp_path / "1.tmp").parent
    rmdir = os.rmdir

    def written_to_meanwhile(doomed: str, **options: int) -> None:
        (path / "late").write_bytes(b"")
        rmdir(doomed, **options)

    monkeypatch.setattr(os, "rmdir", written_to_meanwhile)
    durable.collect_temporaries(tmp_path, lambda: None)
    monkeypatch.undo()

    assert os.listdir(tmp_path) == ["1.tmp"]
    durable.collect_temporaries(tmp_path, lambda: None)
    assert os.listdir(tmp_path) == []


def test_no_temporary_is_removed_once_the_directory_is_no_longer_ours(tmp_path: Path) -> None:
    _filled(tmp_path / "1.tmp")

    def superseded() -> None:
        raise Superseded

    with pytest.raises(Superseded):
        durable.collect_temporaries(tmp_path, superseded)

    assert os.listdir(tmp_path) == ["1.tmp"]


def _filled(directory: Path) -> Path:
    directory.mkdir()
    (directory / "part").write_bytes(b"x")
    return directory / "part"


def test_a_log_on_a_full_disk_keeps_no_torn_line(tmp_path: Path) -> None:
    def body() -> None:
        _limit_files_to(10)
        log = AppendLog(tmp_path / "dead")
        log.append(b"12345678")
        with pytest.raises(NoSpace):
            log.append(b"abcdef")
        log.append(b"9\n")
        assert log.sync() == 10

    assert run_in_child(body) == 0
    assert (tmp_path / "dead").read_bytes() == b"123456789\n"
