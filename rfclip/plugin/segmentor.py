"""RFCLIP, the segmentor in mmsegmentation's registry: a thin adapter round the dense engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rfclip.checks import built
from rfclip.clip.loader import LoadedCLIP, load_clip
from rfclip.clip.precision import as_fp32, check_fp32
from rfclip.clip.text import load_templates, load_vocabulary
from rfclip.clip.towers import check_images
from rfclip.methods.base import DenseOutput
from rfclip.methods.build import build_method
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.fitting import Fit
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings
from rfclip.plugin.preprocess import PREPROCESSORS, flipped_sides, store_result, without_padding

TRAINING_FREE = "RFCLIP is training-free: it has no loss; use mode='predict' or mode='tensor'"
WEIGHTS_ENTER_BY_CLIP = (
    "Weights come only through `clip`: RFCLIP takes them from clip.pretrained only (for tools/test.py: the CHECKPOINT "
    "argument; for mmseg's init_model: leave checkpoint out), so that they are checked and never partly random"
)


@MODELS.register_module()
class RFCLIP(BaseSegmentor):
    """Labels the pixels of images with any words, by a frozen CLIP.

    Args:
        clip: what :func:`rfclip.clip.loader.load_clip` takes: `model`, `pretrained`, and optionally `precision`
            ('fp32', 'bf16' or 'fp16': the weights stay fp32, the tower runs under autocast), `quick_gelu`, `origin`.
        vocabulary: shipped name, path of a .json or .txt file, list of names, or list of lists (aliases).
        method: the dense method, e.g. dict(type='RefocusCLIP', beta=0.7); `distraction_dims='auto'` is resolved
            for the weights, by `calibration_images` (a folder, beside it in the dict) if they are unknown.
        templates: shipped name or list of strings with '{}'.
        prior: arguments of :class:`rfclip.pipeline.prior.Prior`, or None.
        refiner: dict(type='PAMR', ...), dict(type='TextLaplacian', ...), or None.
        logit_scale: factor of the cosines before the softmax.
        prob_thd: winning probabilities below it (0..1) become the background.
        background_index: the class that is the background; needed if `prob_thd` > 0.
        patch_fit: 'crop' (published protocol), 'pad' or 'pad_black', see :class:`rfclip.pipeline.settings.Settings`.
        keep_seg_logits: keep `seg_logits` (the probabilities per class) in the results.
        alias_aggregation: 'max', 'mean' or 'logsumexp': how the logits of a class's names become its own.
        area_thd: classes that have no more than this share (0..1) of what is not background get no pixel; None: none
            are dropped. Needs `background_index` 0.
        test_cfg: dict(mode='whole') or dict(mode='slide', crop_size=224, stride=112, window_batch=8); either with
            pad_multiple, see :class:`rfclip.pipeline.windows.Windows`.
        data_preprocessor: by default a PaddingPreProcessor with the mean and std of the weights.
        pretrained: accepted because mmseg sets it; ignored. So are `train_cfg` and `init_cfg`.

    None of the dicts is modified.

    The weights are frozen, in fp32, and nobody's but those of `clip`: no state_dict holds them, neither this model's
    (which is empty) nor that of a model around it, whose checkpoints can be loaded whatever they hold; initialisers
    and train() do not reach the towers.

    In mmseg's SegTTAModel the labels are the argmax of the mean over the views of softmax(seg_logits). `seg_logits`
    are needed for that, and `prob_thd` has no part in it.

    Raises:
        ValueError: a value out of range, a threshold on a vocabulary without background, or (also from half(),
            double() and the like) another dtype than fp32.
        TypeError: an unknown key.

    Source: docs/METHOD.md sections 3 to 5.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        vocabulary: str | Sequence[str] | Sequence[Sequence[str]],
        method: Mapping[str, Any] | None = None,
        templates: str | Sequence[str] = "imagenet80",
        prior: Mapping[str, Any] | None = None,
        refiner: Mapping[str, Any] | None = None,
        logit_scale: float = 40.0,
        prob_thd: float = 0.0,
        background_index: int | None = None,
        patch_fit: str = "crop",
        keep_seg_logits: bool = True,
        test_cfg: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        pretrained: None = None,
        train_cfg: None = None,
        init_cfg: None = None,
        alias_aggregation: str = "max",
        area_thd: float | None = None,
    ) -> None:
        words = load_vocabulary(vocabulary)
        settings = Settings.of(
            test_cfg,
            prior,
            refiner,
            logit_scale=logit_scale,
            prob_thd=prob_thd,
            background_index=background_index,
            patch_fit=patch_fit,
            keep_probs=keep_seg_logits,
            alias_aggregation=alias_aggregation,
            area_thd=area_thd,
        )
        settings.check_vocabulary(words, vocabulary)
        loaded = built("clip", clip, load_clip)
        super().__init__(data_preprocessor=build_preprocessor(data_preprocessor, loaded))
        self._register_state_dict_hook(_leave_out)
        self.out_channels = max(len(words.names), 2)  # for SegTTAModel, which would threshold a single channel
        self.clip = loaded.model
        self.loaded = loaded
        self.precision = clip.get("precision", "fp32")
        self.vocabulary = words
        self.settings = settings
        self.method = build_method(method, loaded)
        self.templates = load_templates(templates)
        queries = self.engine.queries(words, vocabulary)
        self.register_buffer("text_embeddings", queries.text, persistent=False)
        self.register_buffer("clusters", queries.clusters, persistent=False)
        self.register_buffer("twins", queries.twins, persistent=False)

    @property
    def engine(self) -> DenseEngine:
        """What does the work, round the tower as it is here: moved, or a replica on another device."""
        loaded = dataclasses.replace(self.loaded, model=self.clip)
        return DenseEngine(loaded, self.method, self.settings, self.templates, self.precision)

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Classes and palette of the vocabulary."""
        return {"classes": self.vocabulary.classes, "palette": self.vocabulary.palette}

    @dataset_meta.setter
    def dataset_meta(self, value: object) -> None:
        """Take no notice: mmseg assigns a checkpoint's or Cityscapes' classes, but the vocabulary decides."""
        print_log(
            f"RFCLIP keeps the {len(self.vocabulary.classes)} classes of its vocabulary and the weights of `clip`: "
            "what mmseg's inferencer warns of (a randomly initialised model, classes of Cityscapes) is not so.",
            "current",
        )

    def encode(self, images: Tensor) -> DenseOutput:
        """Run the dense method on normalised images (B, 3, H, W)."""
        return self.engine.encode(images, queries=self._queries())

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Label a batch.

        Args:
            inputs: (B, 3, H, W) normalised images; padding that a sample's `padding_size` names is cut off first.
            data_samples: one per image; `ori_shape` is the size of its result, and if `flip` is true, the image is
                flipped in `flip_direction` and the result is flipped back. None: the size of the input.

        Returns:
            The samples, with `pred_sem_seg.data` (1, H0, W0) int64 and, if kept, `seg_logits.data` (C, H0, W0): the
            probability of each class, by default that of its best name.

        Raises:
            ValueError: `flip_direction` of a flipped sample is not 'horizontal', 'vertical' or 'diagonal'.
        """
        samples = data_samples if data_samples is not None else [SegDataSample() for _ in inputs]
        images = [without_padding(image, sample) for image, sample in zip(as_fp32(inputs), samples, strict=True)]
        flips = [flipped_sides(sample) for sample in samples]
        engine, queries = self.engine, self._queries()
        for group in _equal_sizes(images):
            maps = engine.cosine_maps(torch.stack([images[i] for i in group]), queries, on_grid=True)
            for i, cosines in zip(group, maps, strict=True):
                size = tuple(samples[i].metainfo.get("ori_shape", images[i].shape[-2:]))[:2]
                upright = cosines.flip(flips[i]), images[i].flip(flips[i])
                store_result(samples[i], engine.label_image(*upright, size, queries))
        return samples

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        """Cosines (B, Q, H, W) after prior and window merge, unscaled, or a method's scores (mode='tensor')."""
        return self.engine.cosine_maps(inputs, self._queries())

    def encode_decode(self, inputs: Tensor, batch_data_samples: list[SegDataSample]) -> Tensor:
        """The same as mode='tensor'."""
        return self._forward(inputs, batch_data_samples)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Dense embeddings (B, E, h, w) of normalised images (B, 3, H, W), before normalisation."""
        dense = encode_dense(self, inputs)
        return dense.patches.transpose(1, 2).unflatten(-1, dense.grid)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Raise: there is nothing to train."""
        raise NotImplementedError(TRAINING_FREE)

    def train(self, mode: bool = True) -> RFCLIP:
        """Set the mode of everything but CLIP, which stays in evaluation."""
        super().train(mode)
        self.clip.eval()
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> RFCLIP:
        """Apply a function, often an initialiser of the model around this one, to everything but CLIP."""
        for child in self.children():
            if child is not self.clip:
                child.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RFCLIP:
        """Move to another device, say; casts are refused."""
        check_fp32("the dtype of RFCLIP, alone or inside another model,", fn(self.text_embeddings.new_zeros(1)).dtype)
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuse what is meant for this model; let a model around it load what it likes, and keep the weights."""
        if state_dict and not prefix:
            raise RuntimeError(WEIGHTS_ENTER_BY_CLIP)
        left = [state_dict.pop(name) for name in list(state_dict) if name.startswith(f"{prefix}clip.")]
        if left:
            print_log(f"{len(left)} entries {prefix}clip.* are not loaded. {WEIGHTS_ENTER_BY_CLIP}.", "current")
        state_dict.update(self.clip.state_dict(prefix=f"{prefix}clip."))  # the towers, which are next, load themselves
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _queries(self) -> Queries:
        words = self.vocabulary
        classes = (words.query_class, len(words.names))
        return Queries(self.text_embeddings, *classes, self.clusters, self.twins)


@torch.no_grad()
def encode_dense(model: RFCLIP, images: Tensor) -> DenseOutput:
    """Run the dense method of a built RFCLIP.

    Args:
        model: the segmentor.
        images: (B, 3, H, W), normalised as the model's data preprocessor does it. The model's `patch_fit` acts on
            rows and columns that fill no patch; windows and `pad_multiple` are no part of it.

    Returns:
        `patches` (B, N, E) before normalisation, `image` (B, E), `grid` (h, w).
    """
    check_images(images)
    engine = model.engine
    return model.encode(Fit(engine.patch, model.settings.patch_fit, black=engine.black)(images))


def build_preprocessor(settings: Mapping[str, Any] | nn.Module | None, loaded: LoadedCLIP) -> nn.Module:
    """Build a data preprocessor; None: for BGR images 0..255 (as mmcv loads them), with the weights' mean and std."""
    if isinstance(settings, nn.Module):
        return settings
    default = {"type": "PaddingPreProcessor", "mean": loaded.mean, "std": loaded.std, "bgr_to_rgb": True}
    preprocessor: nn.Module = PREPROCESSORS.build(settings or default)
    return preprocessor


def _equal_sizes(images: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the images, those of one size together."""
    groups: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def _leave_out(model: RFCLIP, state_dict: MutableMapping[str, Any], prefix: str, _: object) -> None:
    """Take what is frozen out of a state_dict."""
    for name in [name for name in state_dict if name.startswith(f"{prefix}clip.")]:
        del state_dict[name]
