"""How a process answers queries, and how it tells what it does."""

from typing import Literal

from pydantic import Field

from streamer.settings.base import Count, NotNegative, Port, Positive, Settings, Share


class Serving(Settings):
    """The query service."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8080, description="port to listen on; 0 takes a free one")
    kind: Literal["ivf", "lsh"] = Field("ivf", description="which index of a version answers")
    recall_floor: Share = Field(
        0.8, description="a version whose click-weighted recall@10 is below is refused"
    )
    refresh_seconds: Positive = Field(0.5, description="how often a new version is looked for")
    max_limit: Count = Field(1000, description="results of one query at most")
    popularity: NotNegative = Field(0.1, description="b of the session query's score")
    session_items: Count = Field(5, description="last items of a session that make its query")
    session_decay: Share = Field(0.4, description="lambda: weight of an item before the last")
    candidates: Count = Field(
        200, description="nearest and most popular items that are re-scored at least"
    )
    shrinkage: NotNegative = Field(
        1.0, description="kappa of neighbours: a cosine counts n/(n + kappa), n the item's clicks"
    )


class Metrics(Settings):
    """The daemon's own HTTP: /metrics, /healthz, /readyz."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(9108, description="port to listen on; 0 takes a free one")
    is_enabled: bool = Field(True, description="listen at all")
    stalled_seconds: Positive = Field(
        30.0, description="without a turn of the loop for so long, /healthz fails"
    )


class Log(Settings):
    """Structured lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level")
    format: Literal["console", "json"] = Field("console", description="for people or machines")
