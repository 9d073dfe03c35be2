"""Text embeddings: prompt templates, the text tower, and the cache on disk."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfclip.checks import shown
from rfclip.data import DATA
from rfclip.io.cache import fingerprint, read_tensors, write_tensors
from rfclip.version import __version__
from rfclip.words.vocabulary import (
    Vocabulary,
    encodable,
    load_vocabulary,
    read_json_list,
    same_name,
    shipped_vocabularies,
)

LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rfclip.clip.loader import LoadedCLIP

__all__ = [
    "Vocabulary",
    "encode_text",
    "load_templates",
    "load_vocabulary",
    "shipped_vocabularies",
    "text_embeddings",
]

_TEMPLATES = DATA / "templates"


def load_templates(spec: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Prompt templates: a shipped name ('imagenet80', 'plain'), the path of a .json list, or a list.

    Each must hold '{}', the place of the class name. Nothing else in it is special.

    Raises:
        ValueError: No template, not a string, one without '{}', or an unknown name.
        FileNotFoundError: No such file.
    """
    templates = read_json_list(spec, _TEMPLATES, "templates") if isinstance(spec, (str, Path)) else spec
    if not isinstance(templates, (list, tuple)) or not templates:
        raise ValueError(f"templates must be a non-empty list of strings with '{{}}', got {shown(templates)}")
    for template in templates:
        if not isinstance(template, str) or "{}" not in template or not encodable(template):
            raise ValueError(
                f"template {shown(template)} has no '{{}}' or is no sound Unicode; put '{{}}' where the class name "
                "belongs, as in 'a photo of a {}.'"
            )
    return tuple(templates)


@torch.no_grad()
def encode_text(
    model: Any,
    tokenizer: Callable[[list[str]], Tensor],
    names: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Tensor:
    """Embed each name in all templates: normalise, average over the templates, normalise.

    Names that make the same tokens have one embedding, equal to the last bit. Prompts go through the text tower in
    batches of similar length. In a causal text tower nothing behind the end token is seen, so there each batch is cut
    behind its longest prompt; that only saves time.

    Args:
        model: An open_clip model (``encode_text``).
        tokenizer: Its tokenizer: texts to tokens (n, context), 0 behind the end.
        names: Q names; '{}' in a name is nothing special.
        templates: Strings with '{}'.
        batch_size: Prompts in one pass of the text tower; it bounds the memory.

    Returns:
        Embeddings (Q, E), fp32, of length one, on the CPU.

    Raises:
        ValueError: No names or no templates.

    Source: docs/METHOD.md section 5.
    """
    tokens = _tokens(tokenizer, names, templates)
    rows = _row_hashes(tokens)
    new = dict(zip(rows, tokens, strict=True))
    embedded = dict(zip(new, _encode(model, torch.stack(list(new.values())), batch_size), strict=True))
    return torch.stack([embedded[row] for row in rows])


@torch.inference_mode(False)
def text_embeddings(clip: LoadedCLIP, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """As :func:`encode_text` for a loaded CLIP, kept on disk name by name: only new names cost a text pass.

    The key of an entry is all that it depends on: the tokens of the name in all templates, the weights, and whatever
    else makes the text tower. Each has a file of its own, so any number of processes can fill the cache at once.

    Names that are longer than the model reads are logged with their number of tokens, and so are names that make the
    same tokens though they are written differently.

    Returns:
        Embeddings (Q, E), fp32, of length one, on the CPU, detached.

    Raises:
        ValueError: No names, no templates, a name that makes the same tokens as no name, or one that ends the text.
    """
    tokens = _checked_tokens(clip, names, templates)
    tower = fingerprint(clip.model, leave_out="visual")
    common = ["text", __version__, open_clip.__version__, clip.weights_hash, clip.architecture, clip.activation, tower]
    keys = [json.dumps([*common, row]) for row in _row_hashes(tokens)]
    found = {key: kept["embedding"] for key in dict.fromkeys(keys) if (kept := read_tensors(key)) is not None}
    new = {key: row for key, row in zip(keys, tokens, strict=True) if key not in found}
    if new:
        for key, embedding in zip(new, _encode(clip.model, torch.stack(list(new.values()))), strict=True):
            found[key] = embedding
            write_tensors(key, {"embedding": embedding.clone()})
    return torch.stack([found[key] for key in keys])


def _tokens(tokenizer: Callable[..., Tensor], names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Tokens (Q, T, context) of Q names in T templates."""
    if not names or not templates:
        raise ValueError(f"{len(names)} names in {len(templates)} templates make no prompt; give both")
    return _tokenized(tokenizer, tuple(names), tuple(templates))


@functools.lru_cache(maxsize=8)  # of a process that does several runs: a tokenizer cleans a thousand prompts in 0.1 s
def _tokenized(tokenizer: Callable[..., Tensor], names: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
    prompts = [template.replace("{}", name) for name in names for template in templates]
    return tokenizer(prompts).unflatten(0, (len(names), len(templates)))


def _row_hashes(tokens: Tensor) -> list[str]:
    """Of each name (Q, T, context) a hash of its tokens."""
    return [hashlib.sha256(row.contiguous().numpy().tobytes()).hexdigest() for row in tokens]


def _checked_tokens(clip: LoadedCLIP, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """As :func:`_tokens`; names that the tokenizer cannot tell from others, or does not read whole, are told."""
    if not names:
        return _tokens(clip.tokenizer, names, templates)
    *tokens, nothing = _tokens(clip.tokenizer, [*names, ""], templates)
    end = nothing.max() if _reads_no_padding(clip.model) else -1  # argmax pooling: the end token is the highest
    alike: dict[str, dict[str, str]] = {}
    for name, row, row_hash in zip(names, tokens, _row_hashes(torch.stack(tokens)), strict=True):
        if torch.equal(row, nothing):
            raise ValueError(
                f"name {shown(name)} makes the same prompts as an empty name, as far as the {row.shape[-1]} tokens "
                "that the model reads: give a name that its tokenizer knows, and templates that leave room for it"
            )
        if row.eq(end).sum() > nothing.eq(end).sum():
            raise ValueError(
                f"name {shown(name)} holds the sign by which the tokenizer ends a text, and nothing behind it would be "
                "read: leave it out"
            )
        alike.setdefault(row_hash, {}).setdefault(same_name(name), name)
    context = nothing.shape[-1]
    lengths = {name: _longest(clip.tokenizer, name, templates, context) for name in dict.fromkeys(names)}
    long = [f"{_ends(name)} makes {length} tokens" for name, length in lengths.items() if length > context]
    if long:
        _warn(
            f"The model reads {context} tokens of a prompt, and what is behind is cut off: with its template, name "
            f"{', name '.join(long)}. Write shorter names, or what counts first."
        )
    for same in alike.values():
        if len(same) > 1:
            _warn(
                f"Names {' and '.join(map(_ends, same.values()))} make the same {context} tokens, so they tie and the "
                "first always wins: write names that differ for the tokenizer, near their beginning."
            )
    return torch.stack(tokens)


def _longest(tokenizer: Callable[..., Tensor], name: str, templates: Sequence[str], context: int) -> int:
    """Tokens of a name in its longest template, uncut; 0 if they are too few to be counted."""
    prompt = max((template.replace("{}", name) for template in templates), key=len)
    most = len(prompt.encode()) + 3  # a token is a byte at least, and a few mark beginning and end
    if most <= context:
        return 0
    wide = tokenizer([prompt], context_length=4 * most)[0]
    return int(wide.ne(wide.mode().values).sum())  # more than half of it is padding


def _ends(name: str) -> str:
    """A name for a message: of a long one beginning and end, which may be where it differs from others."""
    text = ascii(name)
    return text if len(text) <= 120 else f"{text[:60]} ... {text[-60:]}"


def _warn(sentence: str) -> None:
    LOG.warning(sentence)


def _encode(model: Any, tokens: Tensor, batch_size: int = 256) -> Tensor:
    """Embeddings (Q, E) of names (Q, T, context)."""
    prompts = tokens.flatten(0, 1)
    lengths = prompts.shape[1] - prompts.flip(1).ne(0).int().argmax(1)  # up to and with the end token
    batches = lengths.argsort(stable=True).split(batch_size)
    embedded = [_embed(model, prompts[rows, : lengths[rows].max()], prompts.shape[1]) for rows in batches]
    ordered = torch.cat(embedded)[torch.cat(batches).argsort()]  # (Q * T, E)
    return F.normalize(ordered.view(*tokens.shape[:2], -1).mean(1), dim=-1)


def _embed(model: Any, tokens: Tensor, context: int) -> Tensor:
    """Normalised embeddings (n, E), fp32, CPU, of tokens (n, length) that were cut from (n, context)."""
    if _reads_no_padding(model):
        model = _shortened(model, tokens.shape[1])
    else:
        tokens = F.pad(tokens, (0, context - tokens.shape[1]))
    device = next(model.parameters()).device
    with torch.autocast(device.type, enabled=False):
        return F.normalize(model.encode_text(tokens.to(device)).float(), dim=-1).cpu()


def _reads_no_padding(model: Any) -> bool:
    """Whether the text tower is open_clip's causal one that pools at the end token."""
    masked = getattr(model, "attn_mask", None) is not None
    return masked and getattr(model, "text_pool_type", None) == "argmax"


def _shortened(model: Any, length: int) -> Any:
    """A shallow copy of ``model`` for contexts of ``length`` tokens; the model itself is left alone.

    open_clip's ``encode_text`` adds the whole positional table, so the copy holds a shorter one.
    """
    short = copy.copy(model)
    table = nn.Parameter(model.positional_embedding[:length], requires_grad=False)
    short._parameters = {**model._parameters, "positional_embedding": table}
    short._buffers = {**model._buffers, "attn_mask": model.attn_mask[:length, :length]}
    return short
