from streamer.replay.tempo import Tempo


def test_without_a_limit_everything_is_due(manual_clock):
    tempo = Tempo(manual_clock, None, None)

    assert all(tempo.is_due(time_ms) for time_ms in (0, 10**12, 5))
    assert manual_clock.monotonic() == 0


def test_a_rate_is_kept(manual_clock):
    tempo = Tempo(manual_clock, 100.0, None)

    for _ in range(501):
        tempo.is_due(0)

    assert 4.9 < manual_clock.monotonic() < 5.1


def test_at_the_recorded_speed_times_a_factor_a_late_click_does_not_wait(manual_clock):
    tempo = Tempo(manual_clock, None, 60.0)
    moments = []
    for time_ms in (1_000_000, 1_030_000, 1_010_000, 1_120_000):
        assert tempo.is_due(time_ms)
        moments.append(round(manual_clock.monotonic(), 6))

    assert moments == [0, 0.5, 0.5, 2.0]


def test_a_stop_ends_the_wait(manual_clock):
    tempo = Tempo(manual_clock, None, 1.0)
    assert tempo.is_due(0)
    sleep = manual_clock.sleep

    def stopped_meanwhile(seconds):
        tempo.stop()
        sleep(seconds)

    manual_clock.sleep = stopped_meanwhile

    assert not tempo.is_due(3_600_000)
    assert manual_clock.monotonic() < 1
    assert tempo.is_stopped
