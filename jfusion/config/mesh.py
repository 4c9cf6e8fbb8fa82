"""The section of the devices."""

from dataclasses import dataclass

from jfusion.config.checks import require

WHOLE, LARGEST = "whole", "largest"


@dataclass(frozen=True)
class Mesh:
    """How the devices share the work; it changes where numbers lie and not what they are.

    A batch is split over all devices. `data` x `fsdp` is their number: devices of the same `fsdp`
    group keep one copy of the state between them, each a part of it. A run may resume with another
    mesh.

    Attributes:
        data: Copies of the state; -1: as many as there are devices for.
        fsdp: Devices that share a copy; -1 likewise.
        min_size: Parameters with fewer numbers are whole on every device, where `rules` say
            `largest`.
        rules: `(pattern, dimension)` pairs over parameter paths: the dimension along which a
            parameter (and its moments, and its average) is split over `fsdp`, such as `0` or `-1`;
            `largest` is the largest that divides; `whole` splits nothing. The first full match
            wins, and every parameter must be covered.
    """

    data: int = -1
    fsdp: int = 1
    min_size: int = 2**16
    rules: tuple[tuple[str, str], ...] = ((".*", LARGEST),)

    def __post_init__(self):
        for key in ("data", "fsdp"):
            value = getattr(self, key)
            require(value >= 1 or value == -1, key, "-1, or at least 1", value)
        require(self.data > 0 or self.fsdp > 0, "data", "a number with fsdp=-1", self.data)
        require(self.min_size >= 1, "min_size", "at least 1", self.min_size)
        for pattern, dimension in self.rules:
            number = dimension.removeprefix("-").isdecimal()
            known = number or dimension in (WHOLE, LARGEST)
            require(known, "rules", f"a number, {LARGEST} or {WHOLE} for {pattern!r}", dimension)
