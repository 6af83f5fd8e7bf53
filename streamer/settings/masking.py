"""What may not be shown of settings: passwords and the like, and the user in a URL."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_SECRET = re.compile(r"passw|secret|token|credential|private_key|api_?key", re.I)
# To the last @: who writes a password into a URL may have forgotten to quote what it holds.
_USER_IN_URL = re.compile(r"(?<=://)\S+@")


def is_secret(name: str) -> bool:
    """Tell whether what a setting of that name holds is nobody else's business.

    >>> is_secret("sasl_plain_password"), is_secret("sasl_plain_username")
    (True, False)
    """
    return _SECRET.search(name) is not None


def masked(value: Any) -> Any:
    """Return settings, or one value of them, as they may be shown and stored."""
    if isinstance(value, Mapping):
        return {
            name: MASK if is_secret(str(name)) and one not in (None, "") else masked(one)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(one) for one in value]
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """Return a text without the users of its URLs.

    >>> masked_text("http://me:word@proxy:3128 is away")
    'http://***@proxy:3128 is away'
    """
    return _USER_IN_URL.sub(f"{MASK}@", text)
