"""Byte-level byte-pair encoding, as GPT-2 defined it: made from a corpus, written so that llama.cpp agrees.

Guarantees: deterministic (ties go to the smaller pair), loses nothing (every byte is a token), and splits
text before merging exactly like llama.cpp's `gpt-2` pre-tokeniser for the characters the corpus uses.
Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable

# GPT-2's expression with the classes of Python's `re` for its \p{L} and \p{N}.
_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")

Pair = tuple[str, str]


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where printable, else a letter from U+0100 upwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


_LETTERS = _byte_letters()


def _pieces(text: str) -> list[str]:
    return ["".join(_LETTERS[b] for b in piece.encode()) for piece in _PIECE.findall(text)]


def _merged(symbols: list[str], pair: Pair) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokeniser:
    """Special tokens first, then the 256 bytes, then one token per merge. Ids are positions in `tokens`."""

    def __init__(self, specials: tuple[str, ...], merges: list[Pair]) -> None:
        self.specials = specials
        self.merges = merges
        self.tokens = [*specials, *(_LETTERS[b] for b in range(256)), *(a + b for a, b in merges)]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self._rank = {pair: i for i, pair in enumerate(merges)}
        self._special = re.compile("(" + "|".join(re.escape(s) for s in specials) + ")")
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The ids of a text; special tokens are recognised anywhere in it."""
        out: list[int] = []
        for part in self._special.split(text):
            if part in self.specials:
                out.append(self.ids[part])
            else:
                for piece in _pieces(part):
                    out += self._encode_piece(piece)
        return out

    def _encode_piece(self, piece: str) -> list[int]:
        if piece not in self._known:
            symbols = list(piece)
            while len(symbols) > 1:
                pairs = [p for p in itertools.pairwise(symbols) if p in self._rank]
                if not pairs:
                    break
                symbols = _merged(symbols, min(pairs, key=self._rank.__getitem__))
            self._known[piece] = [self.ids[s] for s in symbols]
        return self._known[piece]


def train(texts: Iterable[str], specials: tuple[str, ...], merge_count: int) -> Tokeniser:
    """Merges the most frequent adjacent pair, `merge_count` times or until no pair occurs twice."""
    special = re.compile("|".join(re.escape(s) for s in specials))
    counts: Counter[str] = Counter()
    for text in texts:
        for part in special.split(text):
            counts.update(_pieces(part))
    words = {word: list(word) for word in counts}
    merges: list[Pair] = []
    while len(merges) < merge_count:
        pairs: Counter[Pair] = Counter()
        for word, symbols in words.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        words = {word: _merged(symbols, best) for word, symbols in words.items()}
    return Tokeniser(specials, merges)
