"""Reads a config file and its command-line overrides, and checks both against `config.py`."""

import ast
import dataclasses
import difflib
import importlib.util
import math
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jfusion.config import Config, ConfigError, RangeError


class _Text(str):
    """A value from the command line: what it says depends on the type that is wanted."""


class _MissingError(ConfigError):
    """A section lacks a key that has no default."""


def load(file: str, overrides: Sequence[str] = ()) -> Config:
    """Loads a config file and checks it.

    Args:
        file: `path/to/config.py`, or `path/to/config.py:variant`.
        overrides: `a.b.c=value` texts, with Python literals or plain text as values; numbers in
            the key are places in a list; `None` as a value removes the entry.

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
    try:
        spec.loader.exec_module(module)
        values = module.get_config(variant)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", frames[-1].lineno if frames else None)
        where = f"{path} line {line}" if line else str(path)
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(values, Mapping) and not hasattr(values, "to_dict"):
        raise ConfigError(f"{path}: get_config returned {values!r} and not a ConfigDict")
    return dict(values) if isinstance(values, Mapping) else values.to_dict()


def _set(values: dict, key: str, text: str) -> None:
    """Sets or removes the entry that a dotted key names."""
    *parents, last = key.split(".")
    node = values
    for depth, part in enumerate(parents):
        if isinstance(node, dict):
            node.setdefault(part, {})
        place = _place(node, part, parents[:depth], key)
        if isinstance(node[place], tuple):
            node[place] = list(node[place])
        node = node[place]
        if not isinstance(node, dict | list):
            raise ConfigError(f"config.{key}: {part!r} is a value, not a section")
    place = _place(node, last, parents, key)
    if text != "None":
        node[place] = _Text(text)
    elif isinstance(node, list) or last in node:
        del node[place]
    else:
        raise ConfigError(f"config.{key}: nothing to remove{_near(last, list(node))}")


def _place(node: dict | list, part: str, parents: Sequence[str], key: str) -> str | int:
    """The key or index by which `part` is found in `node`."""
    if isinstance(node, dict):
        if part.isdigit():
            whole = ".".join(parents)
            raise ConfigError(f"config.{key}: no list to change is in the file; set config.{whole}")
        return part
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"config.{key}: {part!r} is not an index below {len(node)}")
    return int(part)


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return str(text)


def _convert(annotation: Any, value: Any, key: str) -> Any:
    """Checks `value` against a type annotation and returns it in that type."""
    if isinstance(value, _Text):
        literal = _literal(value)
        # A folder named 2024.10 must not become the number 2024.1.
        value = literal if annotation is not str or isinstance(literal, str) else str(value)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        return _convert_section(annotation, value, key)
    if origin is types.UnionType:
        return _convert_one_of(args, value, key)
    if origin is Literal:
        if value not in args:
            raise ConfigError(
                f"config.{key}: {value!r} is none of {', '.join(args)}{_close(str(value), args)}"
            )
        return value
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"config.{key}: expected named entries, got {value!r}")
        return {name: _convert_entry(args[1], value, name, key) for name in value}
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


def _convert_one_of(sections: Sequence[type], value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"config.{key}: expected a section, got {value!r}")
    by_kind = {section.kind: section for section in sections}
    if "kind" not in value:
        raise _MissingError(f"config.{key}.kind: missing; one of {', '.join(by_kind)}")
    kind = str(value["kind"])
    if kind not in by_kind:
        raise ConfigError(
            f"config.{key}.kind: {kind!r} is none of {', '.join(by_kind)}"
            f"{_close(kind, list(by_kind))}"
        )
    return _convert(by_kind[kind], value, key)


def _convert_entry(annotation: Any, entries: Mapping, name: Any, key: str) -> Any:
    """Checks one of several named entries."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"config.{key}: {name!r} is no name; use letters, digits and _")
    try:
        return _convert(annotation, entries[name], f"{key}.{name}")
    except _MissingError as error:
        # Most likely a new entry was not meant, but another one misspelt.
        others = difflib.get_close_matches(name, [other for other in entries if other != name])
        hint = f"; did you mean config.{key}.{others[0]}?" if others else ""
        raise ConfigError(f"{error}{hint}") from None


def _convert_section(section: type, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"config.{key}: expected a section, got {value!r}")
    fields = {f.name: f for f in dataclasses.fields(section)}
    hints = typing.get_type_hints(section)
    dot = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            near = _elsewhere(name) or _near(str(name), list(fields))
            raise ConfigError(f"config.{dot}{name}: no such key{near}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise _MissingError(f"config.{dot}{name}: missing")
    converted = {name: _convert(hints[name], v, f"{dot}{name}") for name, v in value.items()}
    try:
        return section(**converted)
    except RangeError as problem:
        raise ConfigError(f"config.{dot}{problem}") from None


def _convert_plain(kind: type, value: Any, key: str) -> Any:
    if kind is Any:
        return _any(value)
    if type(value) in (int, float) and kind in (float, str):
        value = kind(value)
    if type(value) is not kind:
        raise ConfigError(f"config.{key}: expected {kind.__name__}, got {value!r}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"config.{key}: expected a finite number, got {value!r}")
    return value


def _any(value: Any) -> Any:
    """A value of no stated type, written one way: tuples, and texts read as literals."""
    if isinstance(value, Mapping):
        return {name: _any(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_any(entry) for entry in value)
    return _literal(value) if isinstance(value, _Text) else value


def _elsewhere(name: str) -> str:
    """Where a key lies that was looked for in the wrong section."""
    paths = [path for path in _paths(Config) if path.split(".")[-1] == name]
    return f"; did you mean config.{paths[0]}?" if paths else ""


def _paths(section: type, prefix: str = "") -> list[str]:
    """The keys of a section and of those in it; a list of sections stands for its first."""
    paths = []
    for name, hint in typing.get_type_hints(section).items():
        paths.append(f"{prefix}{name}")
        if dataclasses.is_dataclass(hint):
            paths += _paths(hint, f"{prefix}{name}.")
        elif typing.get_origin(hint) is tuple and dataclasses.is_dataclass(
            typing.get_args(hint)[0]
        ):
            paths += _paths(typing.get_args(hint)[0], f"{prefix}{name}.0.")
    return paths


def _near(word: str, known: Sequence[str]) -> str:
    return _close(word, known) or (f"; known: {', '.join(known)}" if known else "")


def _close(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known)
    return f"; did you mean {' or '.join(close)}?" if close else ""
