"""A CLIP from an open_clip name and tag, or from a local file: strict, and never with random weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip import pretrained as registry
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from rfclip.checks import check_choice, check_switch
from rfclip.clip import architecture as arch
from rfclip.clip import towers as V
from rfclip.clip.precision import own_precision
from rfclip.clip.sources import TINY_WEIGHTS, Source, find
from rfclip.clip.tiny import DRAWN_WORLD_ONLY, TINY_FOLDER, TinyTokenizer, expand_token_embedding
from rfclip.clip.weights import (
    WeightFile,
    WeightsError,
    WeightsNotFoundError,
    hash_file,
    hash_tensors,
    load_strictly,
    read_weights,
)

LOG = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, eq=False)
class LoadedCLIP:
    """A CLIP that is ready to be used.

    Attributes:
        model: open_clip's model, fp32, in eval mode, without gradients; `model.visual` is a supported ViT.
        tokenizer: texts -> token ids (len(texts), context length), int64.
        mean: per RGB channel, on the scale 0..255.
        std: the same.
        architecture: open_clip's name of the image tower's sizes, however the model was asked for.
        origin: who trained the weights: 'openai', another open_clip tag, 'tiny', what the user says, or None.
        weights_hash: sha256 of the fp32 weights and the activation, whatever file they came in.
        activation: 'QuickGELU' or 'GELU'.
        note: a sentence that users of the model must know, or None.
    """

    model: nn.Module
    tokenizer: Callable[..., Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    architecture: str
    origin: str | None
    weights_hash: str
    activation: Literal["QuickGELU", "GELU"]
    note: str | None = None

    def normalised(self, images: Tensor) -> Tensor:
        """Turn RGB images (B, H, W, 3) uint8 into what the image tower takes, (B, 3, H, W) fp32."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images.permute(0, 3, 1, 2).float() - mean) / std

    def displayable(self, images: Tensor) -> Tensor:
        """Turn normalised images (..., 3, H, W) back into RGB in 0..1; nothing is rounded or clipped."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images * std + mean) / 255


@own_precision
def load_clip(
    model: str | Path,
    pretrained: str | Path | None = None,
    precision: str = "fp32",
    quick_gelu: bool | None = None,
    origin: str | None = None,
) -> LoadedCLIP:
    """Load a CLIP.

    Args:
        model: an open_clip model name, 'hf-hub:owner/repository', 'local-dir:FOLDER' (a folder with
            open_clip_config.json and weights), the path of such a folder or of an open_clip config .json,
            'auto' (architecture read off the shapes of an OpenAI-layout file) or 'tiny' (ships with rfclip).
        pretrained: an open_clip tag of that model, or the path of a file: TorchScript archive of OpenAI,
            .pt/.pth/.bin state dict, .safetensors. Not given for 'tiny', optional for 'hf-hub:' and folders.
        precision: 'fp32', 'bf16' or 'fp16': what the caller will run in; the weights stay fp32.
        quick_gelu: True or False overrides the activation, which otherwise is QuickGELU for OpenAI's weights, and
            what the model name or config says for others. OpenAI's are those of the tag or `origin` 'openai', a
            TorchScript archive, and a file with the entries input_resolution, context_length and vocab_size, the
            last two unless a config .json names the activation. Where a plain state dict may be OpenAI's, a
            warning asks for this override.
        origin: overrides who trained the weights, for distraction dimensions by name and the activation.

    Raises:
        WeightsNotFoundError: there is no such file, or it cannot be downloaded.
        WeightsError: anything else about the model or the weights.
        ValueError: an argument of another type or name, or an image tower that the methods cannot use.
    """
    _check_arguments(model, pretrained, precision, quick_gelu, origin)
    if origin is not None and origin.lower() == "openai":
        origin = "openai"
    if model == "tiny":
        return _load_tiny(TINY_FOLDER, pretrained, quick_gelu, origin)
    source = find(str(model), None if pretrained is None else str(pretrained))
    arch.check_preprocess(source.preprocess or {}, source.name)
    weights = read_weights(source.path)
    return _assemble(source, weights, weights.tensors, quick_gelu, origin)


def _check_arguments(model: object, pretrained: object, precision: object, quick_gelu: object, origin: object) -> None:
    if model is None or model == "":
        raise WeightsError("clip.model is missing: give an open_clip name, a model-config .json, 'auto' or 'tiny'")
    for name, value in (("model", model), ("pretrained", pretrained)):
        if value is not None and not isinstance(value, (str, Path)):
            raise ValueError(f"clip.{name} must be a name or a path, got {value!r}")
    check_choice("clip.precision", precision, PRECISIONS)
    if quick_gelu is not None:
        check_switch("clip.quick_gelu", quick_gelu)
    if origin is not None and (not isinstance(origin, str) or not origin.strip()):
        raise ValueError(f"clip.origin must be a word such as 'openai', got {origin!r}")


def _load_tiny(folder: Path, pretrained: str | Path | None, quick_gelu: bool | None, origin: str | None) -> LoadedCLIP:
    """Load a folder with config.json and tiny_clip.safetensors, which holds the trained token rows only."""
    if pretrained is not None:
        raise WeightsError(
            f"clip.model='tiny' brings its own weights: leave clip.pretrained={str(pretrained)!r} out, or "
            "give the model that it belongs to"
        )
    config, preprocess = arch.read_config(folder / "config.json")
    source = Source("tiny", folder / TINY_WEIGHTS, config, origin="tiny", preprocess=preprocess)
    weights = read_weights(source.path)
    tensors, trained = expand_token_embedding(weights.tensors, config["text_cfg"].get("vocab_size", 49408))
    loaded = _assemble(source, weights, tensors, quick_gelu, origin)
    return LoadedCLIP(
        **{**vars(loaded), "tokenizer": TinyTokenizer(loaded.tokenizer, trained), "note": DRAWN_WORLD_ONLY}
    )


def _assemble(
    source: Source,
    weights: WeightFile,
    tensors: Mapping[str, Tensor],
    quick_gelu: bool | None,
    origin: str | None,
) -> LoadedCLIP:
    """Build the model, fill it, and gather what goes with it."""
    if any(name.startswith("visual.layer1.") for name in tensors):
        raise WeightsError(
            f"{source.path} holds a CLIP whose image tower is a ResNet, which has no patch tokens: take the "
            "weights of a ViT such as ViT-B-16"
        )
    if any({"vision_model", "text_model"} & set(name.split(".")) for name in tensors):
        raise WeightsError(
            f"the weights in {source.path} are not those of {source.name}: they are in transformers' layout "
            "(vision_model., text_model.), and open_clip's is wanted (visual., transformer.); take the weights of the "
            "same CLIP that open_clip or OpenAI publishes, such as clip.pretrained='openai'"
        )
    config = source.config or arch.config_from_shapes(tensors, str(source.path))
    use_quick_gelu, reason = _activation(source, config, weights, quick_gelu, origin)
    model = arch.build(config, use_quick_gelu, source.name)
    V.check_supported(model.visual)
    if isinstance(model, CustomTextCLIP) and "positional_embedding" in tensors:
        tensors = convert_to_custom_text_state_dict(dict(tensors))
    load_strictly(model, tensors, str(source.path), source.name)
    mean, std = _mean_std(source)
    loaded = LoadedCLIP(
        model=model.eval().requires_grad_(False),
        tokenizer=_tokenizer(config["text_cfg"], source.name, source.folder),
        mean=mean,
        std=std,
        architecture=arch.canonical_name(model.visual),
        origin=origin or source.origin or _origin_of_archive(weights),
        weights_hash=hash_tensors(model.state_dict(), f"{use_quick_gelu} {V.num_heads(model.visual)}"),
        activation="QuickGELU" if use_quick_gelu else "GELU",
    )
    LOG.info(
        f"CLIP {loaded.architecture} from {source.path}: origin {loaded.origin or 'unknown'}, activation "
        f"{loaded.activation} because {reason}."
    )
    return loaded


def _activation(
    source: Source, config: Mapping[str, Any], weights: WeightFile, override: bool | None, origin: str | None
) -> tuple[bool, str]:
    """Return whether the activation is QuickGELU, and why."""
    if override is not None:
        return override, f"clip.quick_gelu={override} says so"
    if origin == "openai":
        return True, "clip.origin='openai' says so"
    if source.config is None:
        return True, "model='auto' means OpenAI's architecture"
    if not source.named and "quick_gelu" in config:
        return bool(config["quick_gelu"]), f"the config {source.name} says so"
    if source.tag is not None and source.origin == "openai":
        return True, "the tag is 'openai'"
    if weights.torchscript:
        return True, "the weights are a TorchScript archive, as OpenAI's are"
    if weights.has_sizes:
        return True, "the weights hold OpenAI's entries input_resolution, context_length and vocab_size"
    chosen = bool(config.get("quick_gelu", False))
    if source.tag is not None and bool(source.tag.get("quick_gelu", False)) != chosen:
        LOG.warning(
            f"open_clip's table says the tag {source.origin!r} was trained with the other activation: take "
            f"clip.model='{source.name}-quickgelu' or set clip.quick_gelu={not chosen}."
        )
    if not (chosen or origin or source.tag or source.together) and arch.is_published_by_openai(config):
        LOG.warning(
            f"The activation of {source.path} cannot be told: OpenAI trained this architecture with QuickGELU, most "
            f"others with GELU, which {source.name} means and which is taken; if the weights are OpenAI's, or tuned "
            "from theirs, set clip.quick_gelu=True (--quick-gelu yes), else clip.quick_gelu=False (--quick-gelu no)."
        )
    return chosen, f"the model {'name' if source.named else 'config'} {source.name} says so"


def _origin_of_archive(weights: WeightFile) -> str | None:
    """Return 'openai' if the file is one of OpenAI's published archives, by its sha256."""
    if not weights.torchscript:
        return None
    urls = [registry.get_pretrained_url(name, "openai") for name in registry.list_pretrained_models_by_tag("openai")]
    published = {url.split("/")[-2] for url in urls if url.count("/") > 1}  # .../models/<sha256>/<name>.pt
    return "openai" if hash_file(weights.path) in published else None


def _mean_std(source: Source) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of the training images per RGB channel, on 0..255."""
    given = source.preprocess or {}
    mean = [round(255 * value, 3) for value in given.get("mean") or OPENAI_DATASET_MEAN]
    std = [round(255 * value, 3) for value in given.get("std") or OPENAI_DATASET_STD]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _tokenizer(text: Mapping[str, Any], name: str, folder: Path | None) -> Callable[..., Tensor]:
    """Return the tokenizer that a text config names, from a folder if there is one; CLIP's own needs no network."""
    context_length = text.get("context_length", 77)
    settings = text.get("tokenizer_kwargs") or {}
    foreign = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if foreign:
        foreign = foreign if folder is None else str(folder)
        try:
            return HFTokenizer(
                foreign, context_length=context_length, tokenizer_mode=text.get("tokenizer_mode"), **settings
            )
        except (OSError, ImportError, RuntimeError, ValueError) as error:
            raise WeightsNotFoundError(
                f"the tokenizer {foreign!r} of {name} is not here ({type(error).__name__}: {error}): install "
                "transformers and connect once, or take a CLIP with OpenAI's tokenizer such as ViT-B-16"
            ) from error
    try:
        tokenizer = SimpleTokenizer(context_length=context_length, **settings)
    except (AssertionError, TypeError, ValueError, LookupError) as error:  # open_clip's, of settings it does not know
        raise WeightsError(
            f"the tokenizer of {name} cannot be built ({error}): correct tokenizer_kwargs, which are {settings}"
        ) from error
    if text.get("vocab_size", 49408) < tokenizer.vocab_size:
        raise WeightsError(
            f"{name} has a vocabulary of {text['vocab_size']} pieces, CLIP's tokenizer one of "
            f"{tokenizer.vocab_size}: give a config that names its tokenizer (hf_tokenizer_name)"
        )
    return tokenizer
