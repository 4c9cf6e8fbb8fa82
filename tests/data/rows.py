"""A source of rows that a test writes down."""

import hashlib


class Rows:
    """Rows as a `Source`; each read of one is counted.

    Attributes:
        reads: How often a row was asked for.
    """

    def __init__(self, rows, name="rows", root=None, features=None, bad_rows=None):
        self.rows = rows
        self.name = name
        self.root = root
        self.fingerprint = hashlib.sha256(f"{name} {rows}".encode()).hexdigest()
        self.reads = 0
        if features is not None:
            self.features = features
        if bad_rows is not None:
            self.bad_rows = bad_rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.reads += 1
        return self.rows[index]

    def locate(self, index):
        return f"{self.name} row {index + 1}"


def column(title, cells, **options):
    """A source of one column."""
    return Rows([{title: cell} for cell in cells], **options)
