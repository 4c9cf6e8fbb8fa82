"""Text to token numbers. Prediction needs nothing but the `tokenizers` package."""

import collections
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from jfusion.data.columns import Cells
from jfusion.data.problems import DataError
from jfusion.data.windows import Windows

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
        words = _commonest(texts, normalizer, splitter)
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

    @classmethod
    def fit_plain(cls, texts: Iterable[Any], size: int) -> "Vocabulary":
        """Lower-case words and numerals of the texts, the most common first, and nothing besides.

        There are no special tokens and no punctuation, and words that are not known are left out.
        Word k of n has number k, and 0 is padding.

        Args:
            texts: As for `fit`.
            size: The number of words n at most.
        """
        normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
        between = tokenizers.Regex(r"[^\p{L}\p{M}\p{N}]+")
        splitter = tokenizers.pre_tokenizers.Split(between, "removed")
        words = _commonest(texts, normalizer, splitter)[:size]
        numbers = {word: number for number, word in enumerate(["[PAD]", *words])}
        # `TextInput` leaves out what has the number of the padding.
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="[PAD]"))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = splitter
        return cls(tokenizer.to_str(), numbers["[PAD]"])


class TextInput:
    """A text column, preprocessed to numbers (N: `max_tokens`, W: `windows`).

    A text is cut into windows of N tokens, each with its own special tokens. If there are more than
    W, those that are taken are spread evenly over the text, from its beginning to its end; W = 1
    takes the beginning. Words that a vocabulary gives the number of its padding (see
    `Vocabulary.fit_plain`) are left out before that.

    Attributes:
        column: The column of the table.
        arrays: See `Windows.arrays`.
        vocab_size: The number of tokens.
    """

    kind = "text"
    notes = ("used",)

    def __init__(self, column: str, vocabulary: Vocabulary, *, max_tokens: int, windows: int = 1):
        self.column = column
        self._windows = Windows(max_tokens, windows, vocabulary.pad)
        self.arrays = self._windows.arrays
        self._tokenizer = tokenizers.Tokenizer.from_str(vocabulary.tokenizer)
        # What a checkpoint sets here is someone else's limit; the arrays are padded below.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._json = self._tokenizer.to_str()
        self.vocab_size = self._tokenizer.get_vocab_size()
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self._sparse = bool(unknown) and self._tokenizer.token_to_id(unknown) == vocabulary.pad
        if not self._sparse:
            self._tokenizer.enable_truncation(max_tokens)

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready; the tokenizer by its hash."""
        return {
            "kind": self.kind,
            "column": self.column,
            "max_tokens": self._windows.tokens,
            "windows": self._windows.count,
            "pad": self._windows.pad,
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
        encodings = self._tokenizer.encode_batch_fast([cells[i] for i in good])
        texts = {i: self._cut(encoding) for i, encoding in zip(good, encodings, strict=True)}
        arrays, used = self._windows.pack(texts, len(cells), self._special)
        return Cells(arrays, bad, {"used": used})

    def _cut(self, encoding: tokenizers.Encoding) -> list[list[int]]:
        """All windows of a text."""
        if self._sparse:
            return self._windows.cut([i for i in encoding.ids if i != self._windows.pad])
        return [encoding.ids, *(more.ids for more in encoding.overflowing)]


def _commonest(texts: Iterable[Any], normalizer: Any, splitter: Any) -> list[str]:
    """All words of some texts, by falling count and then by name."""
    counts = collections.Counter(
        word
        for text in texts
        if not _fault(text)
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    return sorted(counts, key=lambda word: (-counts[word], word))


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
