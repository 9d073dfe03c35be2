"""Which CLIP a name, a config file or the shapes of the weights mean, and building it without weights."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import pretrained as registry
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import check_above_zero, check_choice, check_range, check_switch, check_whole
from rfclip.clip import towers as V
from rfclip.clip.weights import WeightsError, WeightsNotFoundError

_BUILD_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError)


def named_config(name: str) -> dict[str, Any]:
    """Return the config of an open_clip model name; OpenAI's way of writing it ('ViT-B/16') is understood.

    Raises:
        WeightsError: open_clip has no such model.
    """
    config = open_clip.get_model_config(clean_name(name))
    if config is None:
        near = difflib.get_close_matches(clean_name(name), open_clip.list_models(), n=3)
        raise WeightsError(
            f"clip.model={name!r} is no open_clip model{' (near: ' + ', '.join(near) + ')' if near else ''}: "
            "give an open_clip name, the path of a model-config .json, 'auto' or 'tiny'"
        )
    return config


def is_named(name: str) -> bool:
    """Whether open_clip has a model of that name."""
    return clean_name(name) in open_clip.list_models()


def is_published_by_openai(config: Mapping[str, Any]) -> bool:
    """Whether OpenAI published an image tower of these sizes."""
    names = registry.list_pretrained_models_by_tag("openai")
    sizes = _sizes(config)
    return sizes is not None and sizes in [_sizes(open_clip.get_model_config(name)) for name in names]


def clean_name(name: str) -> str:
    """Return a model name as open_clip's tables write it."""
    return name.replace("/", "-")


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read an open_clip model-config file.

    Args:
        path: a JSON file, as in open_clip's model_configs or on a model hub ('model_cfg', 'preprocess_cfg').

    Returns:
        The model config, and the preprocessing config (empty if the file has none).

    Raises:
        WeightsNotFoundError: there is no such file.
        WeightsError: it is no model config.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsNotFoundError(
            f"model config {path} cannot be read ({error.strerror}): give a path that exists, an open_clip "
            "model name, 'auto' or 'tiny'"
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"model config {path} is no JSON ({error}): give an open_clip config") from error
    content = content if isinstance(content, dict) else {}
    config = content.get("model_cfg", content)
    config = config if isinstance(config, dict) else {}
    preprocess = content.get("preprocess_cfg", {})
    sections = (preprocess, config.get("vision_cfg"), config.get("text_cfg"))
    if "embed_dim" not in config or not all(isinstance(section, dict) for section in sections):
        raise WeightsError(
            f"model config {path} lacks embed_dim, vision_cfg or text_cfg: take an open_clip config such "
            "as those in its folder model_configs"
        )
    return config, preprocess


def config_from_shapes(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Read the architecture off the shapes of a state dict in OpenAI's layout.

    Taken for granted, because shapes do not tell it: QuickGELU, heads of width 64, a square native grid.

    Args:
        tensors: by name.
        source: where they come from, for messages.

    Raises:
        WeightsError: the state dict has another layout.
    """
    try:
        return _config_from_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    except (LookupError, ValueError) as error:
        raise WeightsError(
            f"the architecture cannot be read off {source} ({error}; its first tensors are "
            f"{', '.join(list(tensors)[:3])}): model='auto' takes a CLIP with a ViT in OpenAI's layout and a "
            "square native grid, for others give the open_clip model name or a config .json"
        ) from error


def _config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, _, patch, _ = shapes["visual.conv1.weight"]
    positions = shapes["visual.positional_embedding"][0] - 1
    side = math.isqrt(max(positions, 0))
    if side == 0 or side * side != positions:
        raise ValueError(f"{positions} positional embeddings make no square grid")
    context_length, text_width = shapes["positional_embedding"]
    return {
        "embed_dim": shapes["text_projection"][1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": side * patch,
            "patch_size": patch,
            "width": width,
            "layers": _count_blocks(shapes, "visual.transformer.resblocks."),
            "mlp_ratio": shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0] / width,
        },
        "text_cfg": {
            "context_length": context_length,
            "vocab_size": shapes["token_embedding.weight"][0],
            "width": text_width,
            "heads": text_width // 64,
            "layers": _count_blocks(shapes, "transformer.resblocks."),
            "mlp_ratio": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0] / text_width,
        },
    }


def _count_blocks(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Refuse an architecture that the methods cannot use, before any weights are fetched.

    Raises:
        ValueError: see `rfclip.clip.towers.check_supported`.
        WeightsError: the config describes no model.
    """
    try:
        _check_values(config)
        with torch.device("meta"):
            visual = CLIP(config["embed_dim"], config["vision_cfg"], CLIPTextCfg(layers=1)).visual
    except _BUILD_ERRORS as error:
        raise _no_model(name, error) from error
    V.check_supported(visual)


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a value of another type than open_clip's, which would often be used as it is."""
    check_whole("embed_dim", config["embed_dim"], 1)
    for name in ("quick_gelu", "custom_text", "nonscalar_logit_scale"):
        if name in config:
            check_switch(name, config[name])
    for section, known in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        fields = {field.name: field.default for field in dataclasses.fields(known)}
        for name, value in config[section].items():
            needed = type(fields.get(name)) in (int, float) and name != "patch_size"  # which is null for ResNets
            if name in fields and (value is not None or needed):
                _check_value(f"{section}.{name}", name, value, fields[name])


def _check_value(shown: str, name: str, value: object, default: object) -> None:
    """Check a value of a section by open_clip's default for it."""
    if name in ("layers", "image_size", "patch_size") and isinstance(value, (list, tuple)):
        if name != "layers" and len(value) != 2:
            raise ValueError(f"{shown} must be one number, or height and width, got {value!r}")
        for part in value:
            check_whole(shown, part, 1)
    elif name == "attentional_pool" and isinstance(value, str):
        check_choice(shown, value, ("parallel", "cascade"))
    elif isinstance(default, bool):
        check_switch(shown, value)
    elif isinstance(default, int):
        check_whole(shown, value, 0 if name in ("pad_id", "eos_id") else 1)
    elif name.endswith("_kwargs"):
        if not isinstance(value, Mapping):
            raise ValueError(f"{shown} must be a table of names and values, got {value!r}")
        if "eps" in value:
            check_above_zero(f"{shown}.eps", value["eps"])
    elif name in ("patch_dropout", "timm_drop", "timm_drop_path"):
        check_range(shown, value, 0, 1)
    elif isinstance(default, float) or name == "ls_init_value":
        check_above_zero(shown, value)
    elif not isinstance(value, str):
        raise ValueError(f"{shown} must be a text, got {value!r}")


def check_preprocess(preprocess: Mapping[str, Any], name: str) -> None:
    """Refuse a preprocessing whose values are none; what a config leaves out (or gives as null) is open_clip's.

    Args:
        preprocess: mean and std per RGB channel on the scale 0..1, size, interpolation, resize_mode.
        name: for messages.

    Raises:
        WeightsError: a value of another type or range.
    """
    given = {key: value for key, value in preprocess.items() if value is not None}
    try:
        for key in {"mean", "std"} & given.keys():
            if not isinstance(given[key], (list, tuple)) or len(given[key]) != 3:
                raise ValueError(f"{key} must be three numbers, of red, green and blue, got {given[key]!r}")
            for value in given[key]:
                check_range(key, value, 0, 1)
                if key == "std":
                    check_above_zero(key, value)
        size = given.get("size", 1)
        for side in size if isinstance(size, (list, tuple)) else [size]:
            check_whole("size", side, 1)
        check_choice("interpolation", given.get("interpolation", "bicubic"), ("bicubic", "bilinear", "random"))
        check_choice("resize_mode", given.get("resize_mode", "shortest"), ("shortest", "longest", "squash"))
    except ValueError as error:
        raise WeightsError(
            f"the preprocessing of {name} cannot be used ({error}): correct mean and std or the rest of its "
            "preprocess_cfg"
        ) from error


def build(config: Mapping[str, Any], quick_gelu: bool, name: str) -> CLIP | CustomTextCLIP:
    """Return the CLIP that a config describes; its weights are random and must be replaced.

    Args:
        config: an open_clip model config; not modified.
        quick_gelu: the activation of both towers.
        name: for messages.

    Raises:
        WeightsError: the config describes no model, or its text tower needs a package or file not here.
    """
    settings = {key: value for key, value in config.items() if key != "custom_text"}
    settings["quick_gelu"] = quick_gelu
    foreign_text = "hf_model_name" in config["text_cfg"]
    if foreign_text:
        settings["text_cfg"] = {**config["text_cfg"], "hf_model_pretrained": False}
    kind = CustomTextCLIP if foreign_text or config.get("custom_text") else CLIP
    try:
        return kind(**settings)
    except (*_BUILD_ERRORS, OSError, ImportError) as error:
        raise _no_model(name, error) from error


def _no_model(name: str, error: BaseException) -> WeightsError:
    why = str(error) or "a value that open_clip does not know"
    return WeightsError(
        f"the architecture {name} cannot be built ({type(error).__name__}: {why}): check the model config, "
        "and that the packages and files that its text tower names are installed"
    )


def canonical_name(vit: VisionTransformer) -> str:
    """Return open_clip's shortest name for a tower of these sizes, such as 'ViT-B-16' or 'ViT-L-14-336'.

    The name does not depend on how the model was asked for. Sizes without a name give
    'ViT-<width>x<layers>-<patch>-<image height>x<image width>'.
    """
    tower = (V.patch_size(vit), V.width(vit), V.num_layers(vit), V.num_heads(vit))
    sizes = (vit.output_dim, *vit.image_size, *tower)
    for name in sorted(open_clip.list_models(), key=lambda name: (len(name), name)):
        if _sizes(open_clip.get_model_config(name)) == sizes:
            return name
    return f"ViT-{V.width(vit)}x{V.num_layers(vit)}-{V.patch_size(vit)}-{'x'.join(map(str, vit.image_size))}"


def _sizes(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    vision = CLIPVisionCfg(**config["vision_cfg"])
    size = vision.image_size
    if vision.timm_model_name or not isinstance(vision.layers, int) or not isinstance(size, int):
        return None
    heads = vision.width // vision.head_width
    return (config["embed_dim"], size, size, vision.patch_size, vision.width, vision.layers, heads)
