"""The import law: who may import whom, checked on the source without running it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. A part imports itself and parts of lower layers, never another of its own layer.
# A package stands for all of its modules, unless they are listed themselves.
LAYERS = (
    {"errors", "host", "trees"},
    {"config", "processes", "bucket"},
    {"config_file", "command", "run_folder"},
    {"prediction_parts"},
    {"pretrained", "ops"},
    {"models", "data"},
    {"training.state", "training.contrastive", "training.digests", "training.savers"},
    {"training.stored"},
    {
        *("training.optim", "training.sharding", "training.checkpoint", "training.losses"),
        *("training.metrics", "training.writer", "training.pictures", "training.progress"),
        *("training.regression", "training.conformal", "training.seen_rows"),
    },
    {
        "training.meter",
        "training.readout",
        "training.steps",
        "training.assemble",
        "training.confusion",
    },
    {"artifact", "training.evaluation"},
    {"training.verdict", "training.features", "training.earlier", "predictions"},
    {"training.run", "training.tables"},
    {"training.report", "inference"},
    {"training.loop"},
    {"training.repeats"},
    {"main", "evaluate", "predict", "prepare"},  # the commands
)
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}
# Networks and weights take plain numbers, so that they can be used without a config.
WITHOUT_CONFIG = {"errors", "trees", "ops", "pretrained", "models"}
BANNED = {"torch", "torchvision", "timm", "tensorflow", "pickle", "dill", "cloudpickle", "joblib"}
ABOVE = {"benchmarks", "configs", "tests", "launch"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "jfusion").rglob("*.py"))
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """All modules a file imports, inside functions too, with the line."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are written in full"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from ((name, node.lineno) for name in submodules or {node.module})


def part(module: str) -> str:
    """The place of a module in LAYERS."""
    inside = module.removeprefix("jfusion.")
    return inside if inside in LEVEL else inside.partition(".")[0]


def own_imports() -> list[tuple[str, str, str]]:
    """`(importing module, imported module, file:line)` within jfusion."""
    return [
        (module, name, f"{path.relative_to(ROOT)}:{line}")
        for module, path in MODULES.items()
        for name, line in imports(path)
        if name.partition(".")[0] == "jfusion"
    ]


def test_every_module_has_a_place():
    packages = {"jfusion", "jfusion.training"}
    lost = [module for module in MODULES if module not in packages and part(module) not in LEVEL]
    assert not lost, "give them a place in LAYERS"
    for package in packages:
        assert not list(imports(MODULES[package])), f"{package}/__init__.py imports nothing"


def test_imports_point_down():
    upward = [
        f"{where}: {part(module)} imports {part(name)}"
        for module, name, where in own_imports()
        if part(module) != part(name) and LEVEL[part(name)] >= LEVEL[part(module)]
    ]
    assert not upward


def test_networks_know_no_config():
    knowing = [
        where
        for module, name, where in own_imports()
        if part(module) in WITHOUT_CONFIG and part(name) in ("config", "config_file")
    ]
    assert not knowing


def test_nothing_imports_what_stands_above_jfusion_or_is_not_to_be_needed():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES.values()
        for name, line in imports(path)
        if name.partition(".")[0] in BANNED | ABOVE
    ]
    assert not wrong


def test_no_text_is_run_as_a_program():
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("eval", "exec")
    ]
    assert not calls


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.name)
def test_configs_import_ml_collections_only(path):
    assert {name.partition(".")[0] for name, _ in imports(path)} == {"ml_collections"}


@pytest.mark.parametrize("module", ["jfusion.errors", "jfusion.config", "jfusion.config_file"])
def test_the_reader_of_configs_needs_only_the_standard_library(module):
    roots = {name.partition(".")[0] for name, _ in imports(MODULES[module])}
    assert roots <= sys.stdlib_module_names | {"jfusion"}


@pytest.mark.parametrize("module", ["jfusion.config_file", "jfusion.main"])
def test_a_wrong_config_is_found_before_anything_heavy_is_imported(module):
    heavy = {"jax", "flax", "numpy", "pyarrow", "transformers", "tensorboardX", "sklearn"}
    program = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert out.strip() == "[]"


def test_the_law_finds_what_it_forbids(tmp_path):
    """The checks above rest on `imports` and `part`, which must see every form."""
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\n"
        "from jfusion import trees\n"
        "from jfusion.trees import flatten\n"
        "def f():\n"
        "    from jfusion.training import loop, steps\n"
        "    import torch.nn as nn\n"
    )
    assert sorted(imports(path), key=lambda entry: (entry[1], entry[0])) == [
        ("os.path", 1),
        ("jfusion.trees", 2),
        ("jfusion.trees", 3),
        ("jfusion.training.loop", 5),
        ("jfusion.training.steps", 5),
        ("torch.nn", 6),
    ]
    assert part("jfusion.training.loop") == "training.loop"
    assert part("jfusion.data.samples.movies") == "data"
