"""What makes a config wrong."""

from typing import Any

from jfusion.errors import UserError


class ConfigError(UserError):
    """A config that cannot run; the message is one line that names the key."""


class RangeError(ValueError):
    """A value out of its range, named by its key within the section."""


def require(condition: bool, key: str, expected: str, value: Any) -> None:
    """Raises a `RangeError` unless the condition holds."""
    if not condition:
        raise RangeError(f"{key}: expected {expected}, got {value!r}")
