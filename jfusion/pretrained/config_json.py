"""Plain JSON files beside weights, and numbers out of them."""

import json
from pathlib import Path
from typing import Any

from jfusion.pretrained.hub import WeightsError


def read(file: Path, says: str = "what network the weights are of") -> dict[str, Any]:
    """Reads a file that holds an object; the error where there is none tells what it `says`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file.parent} holds no {file.name}, which says {says}") from None
    except ValueError as error:
        raise WeightsError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file} holds {type(content).__name__}, expected an object")
    return content


def number(file: Path, key: str, value: Any, like: Any) -> Any:
    """`value` if it is of the kind of `like`: an int, a float, or a tuple of one of them.

    A tuple may be empty only where `like` is, which stands for integers then.
    """
    if isinstance(like, tuple):
        if isinstance(value, list | tuple) and (value or not like):
            return tuple(number(file, key, item, like[0] if like else 0) for item in value)
        raise WeightsError(f"{file}: {key} is {value!r}, expected a list of numbers")
    kinds, name = (int, "an integer") if isinstance(like, int) else (int | float, "a number")
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise WeightsError(f"{file}: {key} is {value!r}, expected {name}")
    return type(like)(value)
