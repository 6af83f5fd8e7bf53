"""Crash anywhere, resume: the same bits as a stream that was never stopped."""

import pytest

from tests.system.kills import Plan, kill_and_compare
from tests.system.runs import clicks, differences, write_csv

pytestmark = pytest.mark.crash

# Short enough for most windows to close inside the stream, whose events span 93 seconds.
ON_CLOSE = {
    "emission": "on_close",
    "gap_seconds": 5.0,
    "out_of_orderness_seconds": 1.0,
    "lateness_seconds": 2.0,
}


@pytest.mark.parametrize(
    ("sessions", "kills", "n", "seconds"),
    [
        pytest.param({}, 4, 8_000, 7.0, id="early", marks=pytest.mark.slow),
        pytest.param(ON_CLOSE, 3, 7_000, 6.0, id="on_close", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_never_stopped(
    tmp_path, compiled_kernels, sessions, kills, n, seconds
):
    data = write_csv(tmp_path / "clicks.csv", clicks(n))

    verdict = kill_and_compare(Plan(data, kills, seconds, 0.3, sessions), tmp_path, print)

    assert verdict.n_inside == kills
    assert [life.began_at for life in verdict.lives] == sorted(
        life.began_at for life in verdict.lives
    )
    assert len({life.began_at for life in verdict.lives}) == kills
    assert verdict.last_began_at < n
    assert verdict.differences == ()
    assert verdict.is_space_kept
    assert verdict.exit_code == 0


def test_a_bit_that_differs_is_found(livevec):
    rows = clicks(2000)
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", rows))
    livevec.run()
    newest = livevec.newest()
    changed = livevec.newest()
    changed.sections["shard-001"].arrays["inputs"][0, 0] *= 1 + 2**-20

    assert differences(newest, livevec.newest()) == []
    assert differences(newest, changed) == ["shard-001.inputs"]
