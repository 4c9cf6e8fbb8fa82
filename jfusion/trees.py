"""Parameter trees as flat dicts of `a/b/c` paths, and the one pattern language over them.

Parameters, statistics and gradients are plain `dict[str, Array]` keyed by path, for example
`encoders/plot/transformer/layer/0/attention/q_lin/kernel`. Freezing, learning rates, weight decay,
sharding and weight loading all select leaves by regular expressions over these paths.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
Leaf = TypeVar("Leaf")


def flatten(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """Flattens nested dicts (keys: str or int) into `{"a/b/0/c": leaf}`, in sorted order."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}/")
        else:
            flat[path] = value
    return dict(sorted(flat.items())) if not prefix else flat


def first_match(patterns: Sequence[tuple[str, T]], paths: Iterable[str]) -> dict[str, T]:
    """Gives each path the value of the first pattern that matches the whole of it.

    Args:
        patterns: `(regular expression, value)` pairs, in order of precedence.
        paths: The leaf paths; each must be matched by some pattern.

    Returns:
        `{path: value}` for every path.

    Raises:
        ValueError: A path is matched by no pattern, or a pattern is not a regular expression, or
            a pattern matches no path at all (most likely a typing error).
    """
    compiled = [(_compile(pattern), value) for pattern, value in patterns]
    matches, used, uncovered = {}, set(), []
    paths = list(paths)
    for path in paths:
        hits = [i for i, (regex, _) in enumerate(compiled) if regex.fullmatch(path)]
        used.update(hits)
        if hits:
            matches[path] = compiled[hits[0]][1]
        else:
            uncovered.append(path)
    if uncovered:
        raise ValueError(
            f"no pattern covers {len(uncovered)} of {len(paths)} parameters, first "
            f"{uncovered[0]!r}; end the list with a pattern '.*'"
        )
    for i, (regex, _) in enumerate(compiled):
        if i not in used:
            near = difflib.get_close_matches(regex.pattern.removesuffix("/.*"), _prefixes(paths))
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise ValueError(f"pattern {regex.pattern!r} matches no parameter{hint}")
    return matches


def split(tree: Mapping[str, Leaf], chosen: Mapping[str, object]) -> tuple[dict, dict]:
    """Splits a flat tree into the leaves whose value in `chosen` is true, and the others."""
    yes = {path: leaf for path, leaf in tree.items() if chosen[path]}
    no = {path: leaf for path, leaf in tree.items() if not chosen[path]}
    return yes, no


def size(tree: Mapping[str, object]) -> int:
    """The number of scalars in all leaves of a flat tree."""
    return sum(leaf.size for leaf in tree.values())


def _compile(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None


def _prefixes(paths: Iterable[str]) -> list[str]:
    return sorted({"/".join(p.split("/")[:n]) for p in paths for n in range(1, p.count("/") + 1)})
