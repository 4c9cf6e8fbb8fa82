"""What the devices tell each other in a compiled program."""

import math
import re

_EXCHANGE = re.compile(
    r"= (\([^()]*\)|\S+) "
    r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    r"(?:-start)?\("
)
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")


def exchanges(program: str) -> list[tuple[str, list[list[int]], int]]:
    """Every exchange in the text of a compiled program, in loops once.

    Args:
        program: What `compiled.as_text()` gives.

    Returns:
        `(operation, shape of each array it yields, bytes of all of them)`.
    """
    found = []
    for arrays, operation in _EXCHANGE.findall(re.sub(r"/\*.*?\*/", "", program)):
        shapes, size = [], 0
        for kind, bits, numbers in _ARRAY.findall(arrays):
            shape = [int(n) for n in numbers.split(",") if n]
            shapes.append(shape)
            size += math.prod(shape) * (1 if kind == "pred" else int(bits) // 8)
        found.append((operation, shapes, size))
    return found
