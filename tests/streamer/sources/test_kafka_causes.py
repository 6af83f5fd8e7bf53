from kafka.errors import KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailedError

from streamer.sources.kafka_causes import MOST_PLACES, Causes, cause_of

AWAY = KafkaConnectionError("111 ECONNREFUSED")
LATE = KafkaTimeoutError("Connection timed out")
REFUSED = SaslAuthenticationFailedError("no such user")


def test_the_cause_that_says_most_is_kept():
    causes = Causes()

    causes.failed("a", LATE)
    first = causes.at("a")
    causes.failed("a", AWAY)
    causes.failed("a", LATE)
    second = causes.at("a")
    causes.failed("a", REFUSED)
    causes.failed("a", AWAY)

    assert (first, second, causes.at("a")) == (cause_of(LATE), cause_of(AWAY), cause_of(REFUSED))
    assert causes.last == cause_of(AWAY)


def test_a_connection_that_was_made_leaves_no_last_cause():
    causes = Causes()
    causes.failed("a", AWAY)

    causes.connected()

    assert causes.last is None
    assert causes.has_connected
    assert causes.at("a") == cause_of(AWAY)


def test_a_start_is_hopeless_when_every_server_has_refused_for_good():
    causes = Causes()
    seen = [causes.are_final(("a", "b"))]
    for place, error in (("a", REFUSED), ("b", AWAY), ("b", REFUSED)):
        causes.failed(place, error)
        seen.append(causes.are_final(("a", "b")))

    assert seen == [False, False, False, True]
    assert not causes.are_final(())


def test_what_is_remembered_is_bounded():
    causes = Causes()

    for place in range(MOST_PLACES + 5):
        causes.failed(place, AWAY)

    assert causes.at(4) is None
    assert causes.at(5) is not None


def test_an_error_that_nobody_knows_is_told_in_its_own_words_and_without_passwords():
    error = ValueError("Unsupported proxy\nftp://me:word@proxy")

    assert str(cause_of(error)) == "the error: Unsupported proxy ftp://***@proxy"
    assert str(cause_of(KeyError())) == "the error: KeyError"
