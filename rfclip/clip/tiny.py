"""What is special about the CLIP that ships with the package: it keeps the trained token rows only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from rfclip.clip.weights import WeightsError
from rfclip.data import DATA

LOG = logging.getLogger(__name__)

TINY_FOLDER = DATA / "tiny_clip"
DRAWN_WORLD_ONLY = (
    "The tiny CLIP knows the drawn world only, and what it says of photographs means nothing: for those, take another "
    "model, such as ViT-B-16."
)
_ROWS = "token_embedding.weight"
_IDS = "token_ids"


def expand_token_embedding(tensors: Mapping[str, Tensor], vocab_size: int) -> tuple[dict[str, Tensor], frozenset[int]]:
    """Put the kept rows of the token embedding back in their places; the others are zero.

    Args:
        tensors: a state dict whose 'token_embedding.weight' is (R, width), with 'token_ids' (R,), integers
            in 0..vocab_size-1; not modified.
        vocab_size: rows of the whole table.

    Returns:
        The state dict with 'token_embedding.weight' (vocab_size, width) and without 'token_ids', and the ids.

    Raises:
        WeightsError: the two entries are missing or do not fit.
    """
    rest = dict(tensors)
    rows, ids = rest.get(_ROWS), rest.pop(_IDS, None)
    if rows is None or ids is None or rows.ndim != 2 or ids.shape != rows.shape[:1] or ids.is_floating_point():
        raise WeightsError(f"the weights hold no {_IDS} (R,) for the R rows of {_ROWS}: reinstall the package")
    kept = ids.long()
    if len(kept.unique()) != len(kept) or (kept < 0).any() or (kept >= vocab_size).any():
        raise WeightsError(f"{_IDS} are not distinct numbers below {vocab_size}: reinstall the package")
    table = torch.zeros(vocab_size, rows.shape[1], dtype=rows.dtype)
    table[kept] = rows
    return {**rest, _ROWS: table}, frozenset(kept.tolist())


class TinyTokenizer:
    """CLIP's tokenizer; one warning in the log per call names the words that have an untrained piece.

    Args:
        tokenizer: CLIP's own.
        trained: token ids that have a row.
    """

    def __init__(self, tokenizer: Callable[..., Tensor], trained: frozenset[int]) -> None:
        if not isinstance(tokenizer, SimpleTokenizer):
            raise WeightsError("the tiny CLIP has OpenAI's tokenizer: reinstall the package")
        self._tokenizer = tokenizer
        self._trained = trained

    def __eq__(self, other: object) -> bool:
        """Whether the other one gives the same ids and warnings."""
        return isinstance(other, TinyTokenizer) and self._trained == other._trained

    def __hash__(self) -> int:
        return hash(self._trained)

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """Return token ids (len(texts), context length), int64; a call with a length of its own logs nothing."""
        unknown = [] if context_length else self.unknown_words([texts] if isinstance(texts, str) else texts)
        if unknown:
            LOG.warning(
                f"The tiny CLIP was not trained on the words {', '.join(unknown)}: they mean nothing to it. "
                "It knows the class names of the benchmarks; take other weights for words of your own."
            )
        return self._tokenizer(texts, context_length)

    def unknown_words(self, texts: list[str]) -> list[str]:
        """Return the words, in order of appearance, of which some piece has no trained row."""
        words = [word for text in texts for word in self._tokenizer.pat.findall(self._tokenizer.clean_fn(text))]
        return [word for word in dict.fromkeys(words) if not self._trained.issuperset(self._tokenizer.encode(word))]
