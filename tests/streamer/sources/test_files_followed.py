"""Files that are followed, and sources that wait."""

import pytest

from state.offsets import Partition
from streamer.errors import ConfigError
from tests.streamer.sources.opened_files import (
    HEADER,
    SteppingClock,
    item_of,
    opened,
    refused,
    some_rows,
    write,
)


@pytest.fixture
def clock():
    return SteppingClock()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_followed_file_whose_name_goes_to_another_is_an_error(tmp_path, is_there):
    path = write(tmp_path / "a.csv", HEADER + some_rows(9))
    source = opened(path, follow=True)
    source.poll(0.0, 4)
    path.rename(tmp_path / "a.csv.1")
    if is_there:
        write(path, HEADER + some_rows(99))

    assert source.poll(0.0, 100).n_read == 5
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"a\.csv: expected the file that is being followed"):
            source.poll(0.0, 1)


def test_a_poll_at_the_end_waits_no_longer_than_it_may(tmp_path, clock):
    path = write(tmp_path / "a.csv", HEADER + some_rows(1))
    source = opened(path, clock=clock, follow=True)
    source.poll(0.0, 10)

    assert source.poll(0.0, 10) is None
    assert clock.seconds == 0.0
    assert source.poll(0.3, 10) is None
    assert clock.seconds == pytest.approx(0.3)
    assert not source.is_exhausted()
    assert not list(source.ended())
    assert list(source.caught_up()) == [Partition("a.csv", 0)]
    assert source.lag().clicks == 0


def test_an_exhausted_source_does_not_wait(tmp_path, clock):
    source = opened(write(tmp_path / "a.csv", HEADER), clock=clock)

    assert source.poll(9.0, 1) is None
    assert clock.seconds == 0.0


def test_a_paused_source_waits_instead_of_spinning(tmp_path, clock):
    source = opened(write(tmp_path / "a.csv", HEADER + some_rows(1)), clock=clock)
    source.pause()

    assert source.poll(0.2, 1) is None
    assert clock.seconds == pytest.approx(0.2)


def test_a_followed_file_gives_lines_once_they_have_an_end(tmp_path, clock):
    first = write(tmp_path / "a.csv", HEADER + "0,u,s,a")
    path = write(tmp_path / "b.csv", "")
    source = opened(first, path, clock=clock, follow=True)
    written = iter([HEADER[:5], HEADER[5:] + "0,u,", "s,b\n1,u,s,", "c", "c\n"])

    def append():
        with path.open("a") as file:
            file.write(next(written, ""))

    clock.on_sleep = append
    found = []
    while (batch := source.poll(0.5, 10)) is not None:
        found.append((batch.partition.topic, int(batch.offsets[0]), item_of(batch, 0)))

    assert found == [("a.csv", 0, "a"), ("b.csv", 0, "b"), ("b.csv", 1, "cc")]


def test_a_followed_file_that_is_cut_back_is_an_error(tmp_path):
    path = write(tmp_path / "a.csv", HEADER + some_rows(9))
    source = opened(path, follow=True)
    source.poll(0.0, 100)
    write(path, HEADER)

    with pytest.raises(ConfigError, match="only grows"):
        source.poll(0.0, 1)


def test_a_compressed_file_cannot_be_followed(tmp_path):
    packed = write(tmp_path / "a.csv.gz", HEADER)
    plain = write(tmp_path / "b.csv", HEADER)

    assert "to follow" in refused(plain, packed, follow=True)[0]
    assert opened(packed, plain, follow=True).poll(0.0, 1) is None
