import io

from rich.console import Console

from jfusion.training import tables


def text(table):
    file = io.StringIO()
    Console(file=file, width=100).print(table)
    lines = (line for line in file.getvalue().splitlines() if line[0] in "┃│")
    return [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in lines
    ]


def test_metrics_by_split():
    results = {"val": {"macro_f1": 0.75, "map": None}, "test": {"macro_f1": 0.7, "map": 0.5}}
    assert text(tables.of_metrics(results)) == [
        ["metric", "val", "test"],
        ["macro_f1", "0.750", "0.700"],
        ["map", "-", "0.500"],
    ]


def test_the_last_split_is_compared_with_the_best_possible():
    results = {
        "val": {"macro_f1": 0.75, "map": 0.6, "auroc": 0.9},
        "test": {"macro_f1": 0.7, "map": None, "auroc": 0.8},
    }
    assert text(tables.of_metrics(results, {"macro_f1": 0.875, "map": 0.9})) == [
        ["metric", "val", "test", "best possible", "reached"],
        ["macro_f1", "0.750", "0.700", "0.875", "80.0%"],
        ["map", "0.600", "-", "0.900", "-"],
        ["auroc", "0.900", "0.800", "-", "-"],
    ]


def test_labels():
    rows = [
        {"label": "[red]war", "precision": 0.5, "f1": 1.0, "ap": None, "support": 12_345},
        {"label": "drama", "precision": 0.25, "f1": 0.0, "ap": 0.125, "support": 0},
    ]
    assert text(tables.of_rows(rows)) == [
        ["label", "precision", "f1", "ap", "support"],
        ["[red]war", "0.500", "1.000", "-", "12,345"],
        ["drama", "0.250", "0.000", "0.125", "0"],
    ]
