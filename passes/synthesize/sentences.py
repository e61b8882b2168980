"""Sequences of tokens without a text: indices into the embedding table between the markers its size tells of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .roles import Tokens

__all__ = ["MARKERS", "sentence"]

# rows of the embedding table -> first and last token of a sequence, as the published vocabularies have them
MARKERS: Mapping[int, tuple[int, int]] = {
    21128: (101, 102),  # BERT, Chinese
    28996: (101, 102),  # BERT, cased
    30000: (2, 3),  # ALBERT
    30522: (101, 102),  # BERT, uncased
    49408: (49406, 49407),  # CLIP
    50257: (50256, 50256),  # GPT-2
    50265: (0, 2),  # RoBERTa
    119547: (101, 102),  # BERT, multilingual
    250002: (0, 2),  # XLM-RoBERTa
}
_COMMON = 100  # Zipf–Mandelbrot's offset: p ∝ 1/(rank + offset)


def sentence(tokens: Tokens, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`length` tokens of the table's trained rows; the first and last are markers where the vocabulary is known.

    Vocabularies are sorted by frequency from the front, so that half of the words follow Zipf–Mandelbrot's law over
    the index and half are uniform: rare words excite what common ones do not.
    """
    words = tokens.words
    zipf = 1 / (np.arange(len(words)) + _COMMON)
    share = np.where(rng.random(length) < 0.5, 1, 0)
    common = rng.choice(words, length, p=zipf / zipf.sum())
    chosen = np.where(share, common, rng.choice(words, length))
    if (markers := MARKERS.get(tokens.size)) and length > 2:
        chosen[0], chosen[-1] = markers
    return np.asarray(chosen, np.int64)
