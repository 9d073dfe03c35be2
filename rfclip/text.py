"""Text embeddings: prompt templates, the text tower, and the cache on disk."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfclip.cache import read_tensors, write_tensors
from rfclip.vocabulary import Vocabulary, load_vocabulary, read_json_list, shipped_vocabularies, shown

if TYPE_CHECKING:
    from rfclip.clip_loader import LoadedCLIP

__all__ = [
    "Vocabulary",
    "encode_text",
    "load_templates",
    "load_vocabulary",
    "shipped_vocabularies",
    "text_embeddings",
]

_TEMPLATES = Path(__file__).parent / "data" / "templates"


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
        if not isinstance(template, str) or "{}" not in template:
            raise ValueError(
                f"template {shown(template)} has no '{{}}'; put '{{}}' where the class name belongs, as in "
                "'a photo of a {}.'"
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

    Prompts go through the text tower in batches of similar length. In a causal text tower nothing behind
    the end token is seen, so there each batch is cut behind its longest prompt; that only saves time.

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
    prompts = [template.replace("{}", name) for name in names for template in templates]
    if not prompts:
        raise ValueError(f"{len(names)} names in {len(templates)} templates make no prompt; give both")
    tokens = tokenizer(prompts)
    lengths = tokens.shape[1] - tokens.flip(1).ne(0).int().argmax(1)  # up to and with the end token
    batches = lengths.argsort(stable=True).split(batch_size)
    embedded = [_embed(model, tokens[rows, : lengths[rows].max()], tokens.shape[1]) for rows in batches]
    ordered = torch.cat(embedded)[torch.cat(batches).argsort()]  # (Q * templates, E)
    return F.normalize(ordered.view(len(names), len(templates), -1).mean(1), dim=-1)


@torch.inference_mode(False)
def text_embeddings(clip: LoadedCLIP, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """As :func:`encode_text` for a loaded CLIP, kept on disk name by name: only new names cost a text pass.

    The key of an entry is all that it depends on: weights, architecture, activation, templates, name. Each
    name has a file of its own, so any number of processes can fill the cache at once.

    Returns:
        Embeddings (Q, E), fp32, of length one, on the CPU, detached.
    """
    common = ["text", clip.weights_hash, clip.architecture, clip.activation, list(templates)]
    keys = {name: json.dumps([*common, name]) for name in names}
    found = {name: kept["embedding"] for name, key in keys.items() if (kept := read_tensors(key)) is not None}
    missing = [name for name in keys if name not in found]
    if missing:
        encoded = encode_text(clip.model, clip.tokenizer, missing, templates)
        for name, embedding in zip(missing, encoded, strict=True):
            found[name] = embedding
            write_tensors(keys[name], {"embedding": embedding.clone()})
    return torch.stack([found[name] for name in names])


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
