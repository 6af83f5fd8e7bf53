import io

from streamer.progress import LINE_SECONDS, progress


def test_away_from_a_terminal_there_is_a_line_now_and_then(manual_clock):
    stream = io.StringIO()
    with progress(stream, manual_clock, 40_000, "replaying") as show:
        for done in range(0, 40_000, 1000):
            manual_clock.advance(LINE_SECONDS / 10)
            show(done)

    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "replaying: 9,000 of 40,000 records, 1,800/s"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_at_a_terminal_there_is_a_bar(manual_clock):
    stream = Terminal()
    with progress(stream, manual_clock, 40_000, "replaying") as show:
        manual_clock.advance(1)
        show(10_000)

    assert "10000/40000" in stream.getvalue()
