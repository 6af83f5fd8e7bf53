"""The tree of stream errors.

StreamError
├── ConfigError        a setting, a path or an address cannot be used; exit 2
├── BrokerError        Kafka cannot be reached or refuses us; exit 3
│   ├── BrokerUnavailable  no broker lets us in by now
│   ├── NotDelivered       dead letters that a generation counts; it is committed later
│   └── RecordTooLarge     a record is larger than its topic takes; it is cut or left
├── SchemaUnavailable  a schema has not come yet; its records wait, and are tried again
├── InvalidEvent       bytes that are no click; become a dead letter
├── DeadLetterLimit    too many dead letters; exit 5
└── QueryError         a query that cannot be answered
    ├── InvalidQuery       it is not a query of ours; HTTP 422
    ├── UnknownItem        it names an item that the version does not hold; HTTP 404
    └── NotReady           no version has been loaded yet; HTTP 503
"""


class StreamError(Exception):
    """Raised when the stream cannot go on."""


class ConfigError(StreamError):
    """Raised when a setting, a path or an address cannot be used; `faults` lists them all."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class BrokerError(StreamError):
    """Raised when Kafka cannot be reached at start, refuses us, or has lost what comes next."""


class NotDelivered(BrokerError):
    """Raised when Kafka does not take the dead letters that a generation counts."""


class RecordTooLarge(BrokerError):
    """Raised when a record is larger than its topic takes."""


class BrokerUnavailable(BrokerError):
    """Raised when no broker has let us in in time; there may be one later."""


class SchemaUnavailable(StreamError):
    """Raised when records cannot be decoded yet: the schema of some has not come.

    `trouble` is why the registry cannot be asked, or None while nothing is known to be wrong.
    """

    def __init__(self, where: str, schema: int, trouble: str | None) -> None:
        super().__init__(f"expected schema {schema} from {where}, found: {trouble or 'none yet'}")
        self.schema = schema
        self.trouble = trouble


class InvalidEvent(StreamError):
    """Raised when bytes are no click; `reason` is a bounded word, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class DeadLetterLimit(StreamError):
    """Raised when more clicks are unusable than the configuration tolerates."""


class QueryError(StreamError):
    """Raised when a query cannot be answered."""


class InvalidQuery(QueryError):
    """Raised when a query asks for what no version can answer."""


class UnknownItem(QueryError):
    """Raised when a query names items that the version does not hold."""


class NotReady(QueryError):
    """Raised when no version has been loaded yet."""
