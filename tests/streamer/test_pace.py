from streamer.pace import BURST_SECONDS, Pace


def test_without_a_limit_a_whole_batch_is_allowed_at_once(manual_clock):
    pace = Pace(manual_clock, None)

    assert pace.allowance(1000) == 1000
    assert manual_clock.monotonic() == 0


def test_no_more_is_allowed_than_the_rate_over_the_time_and_one_burst(manual_clock):
    pace, rate, taken = Pace(manual_clock, 1000.0), 1000.0, 0

    while manual_clock.monotonic() < 10.0:
        n = pace.allowance()
        pace.took(n)
        taken += n

    elapsed = manual_clock.monotonic()
    assert rate * elapsed * 0.99 <= taken <= rate * (elapsed + BURST_SECONDS)


def test_a_rate_below_one_click_per_burst_waits_for_the_whole_click(manual_clock):
    pace = Pace(manual_clock, 2.0)

    for _ in range(4):
        assert pace.allowance() == 1
        pace.took(1)

    assert 1.5 <= manual_clock.monotonic() <= 2.1


def test_a_quiet_source_does_not_save_up_an_allowance(manual_clock):
    pace = Pace(manual_clock, 1000.0)

    manual_clock.advance(3600.0)

    assert pace.allowance() <= 1000.0 * BURST_SECONDS
