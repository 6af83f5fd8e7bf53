"""What settings are made of: a frozen section, and the kinds of values."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# 300 years in seconds: in milliseconds, sums of several still fit 64 bits.
LARGEST = 1e10
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1 << 53)]
Share = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]


def fixed(default: Any, help_text: str) -> Any:
    """Return a field that gives the state its meaning: part of the manifest's fingerprint."""
    return Field(default, description=help_text, json_schema_extra={"fixed": True})


class Settings(BaseModel):
    """A section: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
