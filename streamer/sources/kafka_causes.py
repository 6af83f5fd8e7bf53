"""Why brokers cannot be reached or refuse us, in words that say what to do; the last is kept."""

import re
import threading
from collections.abc import Collection, Hashable
from dataclasses import dataclass

from streamer.settings.masking import masked_text

MOST_PLACES = 100


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a connection has failed; `is_final` says that trying again cannot help."""

    found: str
    remedy: str = ""
    is_final: bool = False
    is_timeout: bool = False

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}" if self.remedy else self.found


class Causes:
    """Why connections have failed lately, by place; bounded, and safe to ask from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_place: dict[Hashable, Cause] = {}
        self._last: Cause | None = None
        self._has_connected = False

    @property
    def last(self) -> Cause | None:
        """Why the last connection has failed; None when none has since one was made."""
        return self._last

    @property
    def has_connected(self) -> bool:
        """Whether any connection was ever made."""
        return self._has_connected

    def failed(self, place: Hashable, error: BaseException) -> None:
        """Note why the connection to `place` has failed.

        A timeout takes the place of no other cause: an attempt that our own deadline cuts off
        says less than those before. Nor does anything take that of a final one.
        """
        cause = cause_of(error)
        with self._lock:
            self._last = cause
            before = self._by_place.pop(place, cause)
            is_kept = before.is_final or (cause.is_timeout and not before.is_timeout)
            self._by_place[place] = before if is_kept else cause
            if len(self._by_place) > MOST_PLACES:
                del self._by_place[next(iter(self._by_place))]

    def connected(self) -> None:
        """Note that a connection was made, and that we were let in."""
        with self._lock:
            self._has_connected, self._last = True, None

    def at(self, place: Hashable) -> Cause | None:
        """Return why connections to `place` have failed, the cause that says most."""
        with self._lock:
            return self._by_place.get(place)

    def are_final(self, places: Collection[Hashable]) -> bool:
        """Tell whether each of `places` has refused us for good."""
        with self._lock:
            found = [self._by_place.get(place) for place in places]
        return bool(found) and all(one is not None and one.is_final for one in found)


_CLIENT = "source.kafka.client"
_SERVERS = "source.kafka.bootstrap_servers"
_HANGS_UP = (
    "a broker that hangs up, as one does that refuses the password or wants another "
    "security_protocol"
)
# What an error's class and text show, and what they mean. The first that fits counts.
_KNOWN: tuple[tuple[str, Cause], ...] = (
    (
        "^SaslAuthenticationFailed",
        Cause(
            "that the user name or the password is refused",
            f"correct {_CLIENT}.sasl_plain_username or sasl_plain_password",
            is_final=True,
        ),
    ),
    (
        "^UnsupportedSaslMechanism",
        Cause(
            "that the sasl_mechanism is not enabled there",
            f"name one that is in {_CLIENT}.sasl_mechanism",
            is_final=True,
        ),
    ),
    (
        "^IllegalSaslState",
        Cause(
            "a port without SASL",
            f"set {_CLIENT}.security_protocol to PLAINTEXT or SSL, or name another port",
            is_final=True,
        ),
    ),
    (
        "(?:Hostname|IP address) mismatch",
        Cause(
            "a certificate of another name",
            f"name the broker in {_SERVERS} as its certificate does",
            is_final=True,
        ),
    ),
    (
        "certificate has expired|certificate is not yet valid",
        Cause(
            "a certificate that does not hold today",
            "renew it at the broker, or set the clock",
            is_final=True,
        ),
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        Cause(
            "an untrusted certificate",
            f"name the CA that has signed it in {_CLIENT}.ssl_cafile",
            is_final=True,
        ),
    ),
    (
        "^InvalidReceive",
        Cause(
            "an answer that is not Kafka's, as that of a port that wants TLS",
            f"set {_CLIENT}.security_protocol to SSL or SASL_SSL, or name another port",
            is_final=True,
        ),
    ),
    (
        "ALERT_(?:CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_UNKNOWN)",
        Cause(
            "that it wants a certificate of ours, or does not trust it",
            f"name one in {_CLIENT}.ssl_certfile and ssl_keyfile",
            is_final=True,
        ),
    ),
    (
        "Handshake failed: .*(?:EOF|VERSION|reset)",
        Cause(
            "a port that does not speak TLS",
            f"set {_CLIENT}.security_protocol to PLAINTEXT or SASL_PLAINTEXT, or name another port",
        ),
    ),
    (
        r"\[Errno 104\]|ECONNRESET",
        Cause("a broker that hangs up", f"see that it speaks Kafka there, or correct {_SERVERS}"),
    ),
    (
        "ECONNREFUSED",
        Cause("nobody who listens there", f"start the broker, or correct {_SERVERS}"),
    ),
    (
        "DNS",
        Cause("a name without an address", f"correct {_SERVERS}"),
    ),
    (
        "^(?:KafkaTimeout|RequestTimedOut)|Connection timed out|ETIMEDOUT",
        Cause(
            "no answer",
            f"is it running, and no firewall between? else correct {_SERVERS}",
            is_timeout=True,
        ),
    ),
    (
        "socket disconnected",
        Cause(_HANGS_UP, f"correct {_CLIENT}, or look into the broker's log"),
    ),
)
# What the classes of errors and OpenSSL's sources are called says nothing to those who read it.
_NOISE = re.compile(r"^Handshake failed: |^DNS lookup: |^\w+Error: | \(_ssl\.c:\d+\)|\[SSL: \w+\] ")


def cause_of(error: BaseException) -> Cause:
    """Return what an error of kafka-python means, with what it says itself in brackets."""
    said = masked_text(" ".join(str(one) for one in error.args).replace("\n", " "))
    text = f"{type(error).__name__}: {said}"
    known = next((cause for shown, cause in _KNOWN if re.search(shown, text)), None)
    detail = _NOISE.sub("", said).rstrip(".")
    if known is None:
        return Cause(f"the error: {detail or type(error).__name__}")
    found = f"{known.found} ({detail})" if detail else known.found
    return Cause(found, known.remedy, known.is_final, known.is_timeout)
