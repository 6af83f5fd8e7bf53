"""Where unusable clicks go: a file of the state directory, or a Kafka topic."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from streamer.settings.base import Settings


class DeadLetters(Settings):
    """Where unusable clicks go; how many are tolerated stands in [clicks]."""

    topic: str | None = Field(
        None, min_length=1, description="Kafka topic; by default dead-letters.jsonl in the state"
    )
    bootstrap_servers: tuple[str, ...] | None = Field(
        None, min_length=1, description="host:port, one or more; default: those of source.kafka"
    )
    client: Mapping[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="passed on to kafka-python by its own names, with bootstrap_servers; "
        "else those of source.kafka hold",
    )
    max_waiting_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = Field(
        64 << 20,
        description="letters in memory for the topic; beyond it they are committed at once, "
        "and reading pauses",
    )

    @model_validator(mode="after")
    def _client_has_servers(self) -> Self:
        if self.client and self.bootstrap_servers is None:
            msg = (
                "expected bootstrap_servers beside client, found none; the settings of "
                "source.kafka.client hold for the brokers of source.kafka"
            )
            raise ValueError(msg)
        return self
