"""What is done with clicks: windows, training, the store, generations, versions."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from streamer.settings.base import LARGEST, Count, NotNegative, Positive, Settings, Share, fixed


class Sessions(Settings):
    """Session windows, in event time."""

    gap_seconds: Positive = fixed(1800.0, "inactivity that ends a window, inclusive")
    emission: Literal["early", "on_close"] = fixed(
        "early", "train a click when it arrives, or when its window closes"
    )
    out_of_orderness_seconds: NotNegative = Field(
        10.0, description="how far the watermark stays behind the largest event time"
    )
    lateness_seconds: NotNegative = Field(
        300.0, description="how long a window stays open behind the watermark, after its gap"
    )
    max_jump_seconds: Positive = Field(
        86400.0,
        description="a click further ahead of its partition is a dead letter, until 20 agree",
    )
    max_kept: Count = Field(200, description="early: clicks of a window kept as neighbours")
    max_trained: Count = Field(2000, description="clicks of a window trained; beyond it is a bot")
    max_open: Count = Field(1_000_000, description="open windows in memory; the oldest go first")
    idle_timeout_seconds: Positive = Field(
        60.0, description="when a partition that has nothing to read lets others close its windows"
    )

    @model_validator(mode="after")
    def _jump_beyond_disorder(self) -> Self:
        if self.max_jump_seconds < self.out_of_orderness_seconds:
            msg = (
                "expected max_jump_seconds of at least out_of_orderness_seconds "
                f"{self.out_of_orderness_seconds:g}, found {self.max_jump_seconds:g}"
            )
            raise ValueError(msg)
        return self


class Training(Settings):
    """Skip-gram with negative sampling (ARCHITECTURE.md, Semantics)."""

    dim: Annotated[int, Field(ge=2, le=1024)] = fixed(64, "length of a vector")
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = fixed(1, "of every draw")
    noise_table_size: Annotated[int, Field(ge=1, le=1 << 26)] = fixed(
        1 << 18, "recent clicks from which negatives are drawn"
    )
    popularity_half_lives: tuple[Positive, Positive] = fixed(
        (3000.0, 50000.0), "fast and slow, in accepted clicks"
    )
    transition_half_life: Positive = fixed(
        20000.0, "in accepted clicks, of what was clicked after an item"
    )
    window: Annotated[int, Field(ge=1, le=64)] = Field(
        5, description="neighbours of a click on each side"
    )
    negatives: Annotated[int, Field(ge=1, le=256)] = Field(
        10, description="drawn for each click, shared by its pairs"
    )
    passes: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="updates of a click, each with fresh negatives"
    )
    learning_rate: Positive = Field(0.2, description="eta of row-wise AdaGrad")
    epsilon: Positive = Field(1e-8, description="added to AdaGrad's accumulator")
    audit: bool = Field(
        False,
        description="count and hash-sum the trained pairs of each session, too, from the first"
        " start with it; memory and generations grow with every session, without bound",
    )


class Store(Settings):
    """Rows, bounded by configuration."""

    directory: Path = Field(Path("livevec-state"), description="where all state lives")
    max_items: Annotated[int, Field(ge=1, le=1 << 30)] = fixed(
        1_000_000, "items with a row; clicks on further new items are filtered (store_full)"
    )
    n_shards: Annotated[int, Field(ge=1, le=1024)] = fixed(4, "blocks of rows")
    transitions_per_item: Annotated[int, Field(ge=1, le=1024)] = fixed(
        32, "items kept of those clicked after an item"
    )
    recent_sessions: Annotated[int, Field(ge=1, le=1 << 28)] = fixed(
        1 << 18, "sessions kept that vote for what they held"
    )
    sessions_per_item: Annotated[int, Field(ge=1, le=1024)] = fixed(
        64, "of the recent sessions, how many an item is looked up in"
    )
    items_per_session: Annotated[int, Field(ge=2, le=256)] = fixed(
        16, "first distinct items kept of a recent session"
    )
    lease_seconds: Annotated[float, Field(ge=2, le=LARGEST, allow_inf_nan=False)] = Field(
        5.0, description="how long a standby looks in vain for a sign of life before it takes over"
    )


class Checkpoint(Settings):
    """Generations: what a crash falls back to."""

    interval_seconds: Positive = Field(30.0, description="commit at least this often")
    every_clicks: Count = Field(250_000, description="commit after this many clicks, too")
    retain: Annotated[int, Field(ge=2)] = Field(3, description="generations kept")
    drain_seconds: Positive = Field(
        20.0, description="how long a SIGTERM may take; shorter than the platform's grace"
    )
    max_uncommitted: Count = Field(
        10_000_000, description="clicks not yet durable, beyond which reading pauses"
    )

    @model_validator(mode="after")
    def _room_to_commit(self) -> Self:
        if self.max_uncommitted < self.every_clicks:
            msg = (
                f"expected max_uncommitted of at least every_clicks {self.every_clicks}, "
                f"found {self.max_uncommitted}"
            )
            raise ValueError(msg)
        return self


class Index(Settings):
    """FAISS indexes, built beside the stream from a committed generation."""

    kinds: tuple[Literal["ivf", "lsh"], ...] = Field(
        ("ivf", "lsh"), min_length=1, description="built into every version"
    )
    interval_seconds: Positive = Field(120.0, description="build at least this often")
    every_clicks: Count = Field(500_000, description="build after this many clicks, too")
    recall_target: Share = Field(
        0.97, description="of recall@10, click-weighted; nprobe and k_factor are chosen to meet it"
    )
    lsh_bits: Annotated[int, Field(ge=8, le=8192)] = Field(512, description="bits of an LSH code")
    min_rows: Annotated[int, Field(ge=256)] = Field(
        1000, description="fewer items than this get an exact index instead"
    )
    retain: Annotated[int, Field(ge=2)] = Field(3, description="versions kept")


class Publish(Settings):
    """Where versions go."""

    directory: Path | None = Field(None, description="default: published/ in store.directory")
