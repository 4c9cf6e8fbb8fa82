"""Text to token numbers. Prediction needs nothing but the `tokenizers` package."""

import collections
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from jfusion.data.columns import Cells
from jfusion.data.problems import DataError

_FILES = ("tokenizer.json", "vocab.txt")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as data.

    Attributes:
        tokenizer: The JSON of a `tokenizers.Tokenizer`.
        pad: The number that fills the places after a text.
    """

    tokenizer: str
    pad: int

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """The tokenizer of a folder of pretrained weights."""
        from transformers import AutoTokenizer  # slow to import, and prediction does without

        # Without this, transformers 5 would make a tokenizer that knows no word at all.
        if not any((folder / name).is_file() for name in _FILES):
            raise DataError(
                f"{folder} holds no tokenizer ({' or '.join(_FILES)}); name one that does: "
                "--config.inputs.NAME.tokenizer=/path/to/folder"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: its tokenizer cannot be loaded: {error}") from None
        if not tokenizer.is_fast:
            raise DataError(f"{folder}: its tokenizer has no fast form (a tokenizer.json)")
        return cls(tokenizer.backend_tokenizer.to_str(), tokenizer.pad_token_id or 0)

    @classmethod
    def fit(cls, texts: Iterable[Any], size: int) -> "Vocabulary":
        """Whole lower-case words of the texts, the most common first.

        Args:
            texts: What to learn from: the training split and nothing else. Cells that are no text
                are passed over.
            size: The number of tokens at most, with `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`.
        """
        normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
        splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
        counts = collections.Counter(
            word
            for text in texts
            if not _fault(text)
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
        )
        words = sorted(counts, key=lambda word: (-counts[word], word))
        chosen = [*_SPECIAL, *(word for word in words if word not in _SPECIAL)][:size]
        numbers = {word: number for number, word in enumerate(chosen)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="[UNK]"))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = splitter
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")],
        )
        return cls(tokenizer.to_str(), numbers["[PAD]"])


class TextInput:
    """A text column, preprocessed to numbers (N: `max_tokens`, W: `windows`).

    A text is cut into windows of N tokens, each with its own special tokens. If there are more than
    W, those that are taken are spread evenly over the text, from its beginning to its end; W = 1
    takes the beginning.

    Attributes:
        column: The column of the table.
        arrays: `{array: (shape of a row, dtype)}`: `ids` int32 [N], `length` int32 []; with W > 1
            `ids` int32 [W, N], `length` int32 [W], 0 for a window that is not used.
        vocab_size: The number of tokens.
    """

    kind = "text"
    notes = ("used",)

    def __init__(self, column: str, vocabulary: Vocabulary, *, max_tokens: int, windows: int = 1):
        self.column = column
        several = (windows,) if windows > 1 else ()
        self.arrays = {"ids": ((*several, max_tokens), np.int32), "length": (several, np.int32)}
        self._max_tokens = max_tokens
        self._windows = windows
        self._pad = vocabulary.pad
        self._tokenizer = tokenizers.Tokenizer.from_str(vocabulary.tokenizer)
        # What a checkpoint sets here is someone else's limit; the arrays are padded below.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._json = self._tokenizer.to_str()
        self.vocab_size = self._tokenizer.get_vocab_size()
        self._tokenizer.enable_truncation(max_tokens)
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready; the tokenizer by its hash."""
        return {
            "kind": self.kind,
            "column": self.column,
            "max_tokens": self._max_tokens,
            "windows": self._windows,
            "pad": self._pad,
            "tokenizer": hashlib.sha256(self._json.encode()).hexdigest(),
        }

    def save(self, folder: Path, name: str) -> None:
        """Writes the tokenizer beside the model; `from_spec` reads it."""
        (Path(folder) / _file(name)).write_text(self._json, encoding="utf-8")

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], folder: Path, name: str) -> "TextInput":
        """Makes the input that `spec` and `save` describe."""
        path = Path(folder) / _file(name)
        vocabulary = Vocabulary(path.read_text(encoding="utf-8"), spec["pad"])
        sizes = {key: spec[key] for key in ("max_tokens", "windows")}
        made = cls(spec["column"], vocabulary, **sizes)
        if made.spec() != dict(spec):
            raise DataError(f"{path} is not the tokenizer that the model was trained with")
        return made

    def encode(self, cells: Sequence[Any], root: Path | None = None) -> Cells:
        """Tokenizes non-empty cells, together.

        Args:
            cells: Texts (n of them).
            root: Unused; pictures need it.

        Returns:
            `ids` [n, N] and `length` [n], or [n, W, N] and [n, W]. What is cut keeps its closing
            token. The note `used` is the share of a text's tokens that the windows hold.
        """
        bad = {i: reason for i, cell in enumerate(cells) if (reason := _fault(cell))}
        good = [i for i in range(len(cells)) if i not in bad]
        ids = np.full((len(cells), self._windows, self._max_tokens), self._pad, np.int32)
        length = np.zeros((len(cells), self._windows), np.int32)
        used = np.zeros(len(cells), np.float32)
        ids[list(bad)] = 0
        for i, encoding in zip(
            good, self._tokenizer.encode_batch_fast([cells[i] for i in good]), strict=True
        ):
            windows = [encoding.ids, *(more.ids for more in encoding.overflowing)]
            taken = self._spread(windows)
            for w, window in enumerate(taken):
                length[i, w] = len(window)
                ids[i, w, : length[i, w]] = window
            used[i] = self._count(taken) / max(1, self._count(windows)) if windows[1:] else 1
        shapes = {name: (len(cells), *shape) for name, (shape, _) in self.arrays.items()}
        arrays = {"ids": ids.reshape(shapes["ids"]), "length": length.reshape(shapes["length"])}
        return Cells(arrays, bad, {"used": used})

    def _spread(self, windows: list[list[int]]) -> list[list[int]]:
        """As many windows as there is room for, the first and the last among them."""
        if len(windows) <= self._windows:
            return windows
        steps = np.linspace(0, len(windows) - 1, self._windows)  # for W = 1 that is [0]
        return [windows[round(step)] for step in steps]

    def _count(self, windows: list[list[int]]) -> int:
        """The tokens of the text in some windows."""
        return sum(len(window) - self._special for window in windows)


def _file(name: str) -> str:
    return f"tokenizer-{name}.json"


def _fault(cell: Any) -> str:
    """Why a cell is no text, or nothing."""
    if not isinstance(cell, str):
        return f"not a text but {type(cell).__name__}: {json.dumps(cell, default=str):.40}"
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        return f"not a Unicode text: half a surrogate pair at character {error.start + 1}"
    return ""
