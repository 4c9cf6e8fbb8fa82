"""Reads a config file and its command-line overrides, and checks both against `config.py`."""

import ast
import dataclasses
import difflib
import importlib.util
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jfusion.config import Config, ConfigError, RangeError


def load(file: str, overrides: Sequence[str] = ()) -> Config:
    """Loads a config file and checks it.

    Args:
        file: `path/to/config.py`, or `path/to/config.py:variant`.
        overrides: `a.b.c=value` texts; `None` as a value removes the entry.

    Returns:
        The resolved config.

    Raises:
        ConfigError: No such file, variant, key or value.
    """
    path, _, variant = file.partition(":")
    values = _run_config_file(Path(path), variant)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--config.{override}: write --config.{key}=VALUE")
        _set(values, key, text)
    values["name"] = Path(path).stem + (f":{variant}" if variant else "")
    return resolve(values)


def resolve(values: Mapping[str, Any]) -> Config:
    """Turns nested plain values into a `Config`; raises `ConfigError` at the first wrong one."""
    return _convert(Config, values, "")


def _run_config_file(path: Path, variant: str) -> dict[str, Any]:
    if not path.is_file():
        here = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise ConfigError(f"no config file {str(path)!r}{_near(str(path), here)}")
    spec = importlib.util.spec_from_file_location(f"jfusion_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(variant).to_dict()
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _set(values: dict, key: str, text: str) -> None:
    *parents, last = key.split(".")
    node = values
    for part in parents:
        if isinstance(node, list):
            node = node[_index(node, part, key)]
            continue
        if isinstance(node.get(part), tuple):
            node[part] = list(node[part])
        node = node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"config.{key}: {part!r} is a value, not a section")
    if isinstance(node, list):
        node[_index(node, last, key)] = _literal(text)
    elif text == "None":
        if node.pop(last, None) is None:
            raise ConfigError(f"config.{key}: nothing to remove{_near(last, list(node))}")
    else:
        node[last] = _literal(text)


def _index(node: list, part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"config.{key}: {part!r} is not an index below {len(node)}")
    return int(part)


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _convert(annotation: Any, value: Any, key: str) -> Any:
    """Checks `value` against a type annotation and returns it in that type."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        return _convert_section(annotation, value, key)
    if origin is types.UnionType:
        by_kind = {option.kind: option for option in args}
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if kind not in by_kind:
            raise ConfigError(f"config.{key}.kind: {kind!r} is none of {', '.join(by_kind)}")
        return _convert(by_kind[kind], value, key)
    if origin is Literal:
        if value not in args:
            raise ConfigError(
                f"config.{key}: {value!r} is none of {', '.join(args)}{_near(str(value), args)}"
            )
        return value
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"config.{key}: expected named entries, got {value!r}")
        return {name: _convert(args[1], entry, f"{key}.{name}") for name, entry in value.items()}
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"config.{key}: expected a list, got {value!r}")
        kinds = args[:1] * len(value) if args[1:] == (...,) else args
        if len(kinds) != len(value):
            raise ConfigError(f"config.{key}: expected {len(kinds)} entries, got {value!r}")
        return tuple(
            _convert(kind, entry, f"{key}.{i}")
            for i, (kind, entry) in enumerate(zip(kinds, value, strict=True))
        )
    return _convert_plain(annotation, value, key)


def _convert_section(section: type, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"config.{key}: expected a section, got {value!r}")
    fields = {f.name: f for f in dataclasses.fields(section)}
    hints = typing.get_type_hints(section)
    dot = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            raise ConfigError(f"config.{dot}{name}: no such key{_near(name, list(fields))}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ConfigError(f"config.{dot}{name}: missing")
    converted = {name: _convert(hints[name], v, f"{dot}{name}") for name, v in value.items()}
    try:
        return section(**converted)
    except RangeError as problem:
        raise ConfigError(f"config.{dot}{problem}") from None


def _convert_plain(kind: type, value: Any, key: str) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and not isinstance(value, str) and isinstance(value, int | float):
        return str(value)
    if type(value) is not kind:
        raise ConfigError(f"config.{key}: expected {kind.__name__}, got {value!r}")
    return value


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"
