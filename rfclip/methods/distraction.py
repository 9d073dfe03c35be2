"""Distraction dimensions: from the data file for known weights, found by calibration for any others.

A distraction dimension is a channel that is over-activated in some tokens because of the weights, whatever
the image (docs/METHOD.md section 2). The rule by which this project chooses them, since the paper chooses by
hand: a channel is one if

- it peaks in the profile: its mean share of the embedding is above PEAK_SHARE / d, and more than
  PEAK_DEVIATIONS robust standard deviations (1.4826 x median absolute deviation) above the median; or
- it makes distractors: more than CROSSING_SHARE of the patches have more than 5/d of their embedding in it.

The second half finds channels that are strong in few tokens, which a mean over all tokens drowns.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from rfclip.checks import check_dims
from rfclip.clip import towers as V
from rfclip.clip.loader import LoadedCLIP
from rfclip.clip.precision import own_precision
from rfclip.data import DATA
from rfclip.io.cache import cached_tensors, expanded, fingerprint
from rfclip.io.formats import SUFFIXES
from rfclip.io.images import read_image, resize_short_side
from rfclip.io.sample_world import calibration_images as generated_scenes

LOG = logging.getLogger(__name__)

DATA_FILE = DATA / "distraction_dims.json"
PEAK_SHARE = 2.0  # in units of 1/d
PEAK_DEVIATIONS = 8.0
CROSSING_SHARE = 0.002  # of all patches at all boundaries
CROSSING = 5.0  # in units of 1/d; the paper's tau
SCENES = 32
MOST_IMAGES = 128  # of a folder
_BATCH = 8


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """What calibration measures, over patches (class tokens left out) at all layer boundaries.

    Attributes:
        profile: (d,) fp64, mean share p of each channel in a patch's embedding; sums to 1.
        crossings: (d,) fp64, share of the patches with p above 5/d in the channel.
    """

    profile: Tensor
    crossings: Tensor


def resolve_distraction_dims(
    clip: LoadedCLIP, spec: str | Sequence[int] = "auto", calibration_images: str | Path | None = None
) -> tuple[int, ...]:
    """Return the distraction dimensions to use with a CLIP, and log where they come from.

    Args:
        clip: the CLIP.
        spec: the dimensions themselves (empty: no token is a distractor); 'auto': from the data file that
            ships with the package if it knows architecture and origin, else calibrated and cached; or
            the path of a data file of your own, architecture -> origin or weights hash -> dimensions.
        calibration_images: a folder of images for calibration, instead of generated scenes.

    Raises:
        ValueError: a dimension is no channel of this CLIP, or the file or the folder cannot be used.
    """
    if not isinstance(spec, str):
        return tuple(check_dims(spec, V.width(clip.model.visual)))
    file = DATA_FILE if spec == "auto" else expanded(spec)
    dims = _look_up(file, clip)
    if dims is not None:
        LOG.info(f"Distraction dimensions of {clip.architecture}: {_listed(dims)}, from {file}.")
        return dims
    if spec != "auto":
        raise ValueError(
            f"distraction_dims={spec!r} holds nothing for {clip.architecture} of origin {clip.origin!r} "
            f"or weights {clip.weights_hash}: add them, or give 'auto'"
        )
    return _calibrated(clip, calibration_images)


def _look_up(file: Path, clip: LoadedCLIP) -> tuple[int, ...] | None:
    """Return what a data file says about a CLIP, or None if nothing."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        entry = table.get(clip.architecture, {})
        found = [entry[key] for key in (clip.weights_hash, clip.origin) if key in entry]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"distraction_dims: {file} is no data file (architecture -> origin -> channels): {error}; "
            "give 'auto', a list of channels or such a file"
        ) from error
    return tuple(check_dims(found[0], V.width(clip.model.visual))) if found else None


def _calibrated(clip: LoadedCLIP, folder: str | Path | None) -> tuple[int, ...]:
    """Calibrate, or take the result of an earlier calibration with the same weights, images and rule."""
    vit: VisionTransformer = clip.model.visual
    if folder is None:
        size, images = tuple(vit.image_size), f"{SCENES} generated scenes"
        batches = _scenes(size)
        identity = f"{SCENES} {hashlib.sha256(generated_scenes(1, size, 0).tobytes()).hexdigest()}"
    else:
        paths = image_files(expanded(folder))
        batches, images = read_images(paths, min(vit.image_size)), f"{len(paths)} images of {folder}"
        identity = _fingerprint(paths)

    def calibrate() -> dict[str, Tensor]:
        statistics = measure(vit, map(clip.normalised, batches))
        return {"dims": torch.tensor(pick_peaks(statistics.profile, statistics.crossings), dtype=torch.long)}

    rule = (PEAK_SHARE, PEAK_DEVIATIONS, CROSSING_SHARE, CROSSING)
    tower = f"{clip.weights_hash} {fingerprint(vit)} {clip.mean} {clip.std} {tuple(vit.image_size)}"
    kept = cached_tensors(f"distraction dimensions {tower} {identity} {rule}", calibrate)
    dims = tuple(kept["dims"].tolist())
    LOG.log(
        logging.INFO if dims else logging.WARNING,
        f"Distraction dimensions of {clip.architecture}, origin {clip.origin or 'unknown'}: not in the data "
        f"file, calibrated on {images}: {_listed(dims)}"
        + ("." if dims else ", because no channel is over-activated; no token will be a distractor."),
    )
    return dims


@own_precision
@torch.inference_mode()
def measure(vit: VisionTransformer, batches: Iterable[Tensor]) -> ChannelStatistics:
    """Run images through the ordinary blocks and average the patches' normalised embeddings.

    The boundaries are the output of ln_pre and of every block; every patch of every image counts the same.

    Args:
        vit: the tower.
        batches: normalised images (B, 3, height, width), sizes may differ from batch to batch.

    Raises:
        ValueError: there is no image.
    """
    share = torch.zeros(V.width(vit), dtype=torch.float64)
    above = torch.zeros_like(share)
    patches = 0
    for images in batches:
        tokens, _ = V.embed(vit, images.to(vit.conv1.weight.device))
        for block in (None, *V.blocks(vit)):
            tokens = tokens if block is None else V.run_block(block, tokens)
            p = channel_shares(tokens[:, 1:]).flatten(0, 1)  # (B*N, d)
            share += p.sum(0, dtype=torch.float64).cpu()
            above += (p > CROSSING / p.shape[-1]).sum(0).cpu()
            patches += len(p)
    if patches == 0:
        raise ValueError("calibration got no image: give at least one batch")
    return ChannelStatistics(share / patches, above / patches)


def channel_shares(tokens: Tensor) -> Tensor:
    """Return p: embeddings (..., d) shifted to be non-negative, sum 1 (docs/METHOD.md section 3, step 1)."""
    shifted = tokens - tokens.amin(-1, keepdim=True)
    return shifted / shifted.sum(-1, keepdim=True).clamp_min(1e-8)


def distraction_profile(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Return the profile (d,), sum 1, of normalised images (B, 3, height, width): METHOD.md section 2."""
    return measure(vit, [images]).profile


def pick_peaks(profile: Tensor, crossings: Tensor | None = None) -> tuple[int, ...]:
    """Choose the distraction dimensions by the rule at the top of this file.

    Args:
        profile: (d,), mean shares.
        crossings: (d,), shares of patches above 5/d; None: the first half of the rule alone.

    Returns:
        The channels in ascending order; empty where nothing peaks.
    """
    median = profile.median()
    deviation = 1.4826 * (profile - median).abs().median()
    peaks = (profile > PEAK_SHARE / len(profile)) & (profile > median + PEAK_DEVIATIONS * deviation)
    if crossings is not None:
        peaks |= crossings > CROSSING_SHARE
    return tuple(peaks.nonzero().flatten().tolist())


def agreement(first: Sequence[int], second: Sequence[int]) -> float:
    """Return how far two sets of dimensions agree: size of the intersection over size of the union, 0..1."""
    union = set(first) | set(second)
    return len(set(first) & set(second)) / len(union) if union else 1.0


def _scenes(size: tuple[int, int]) -> Iterator[Tensor]:
    """Make the default images, only when asked for one."""
    yield from torch.from_numpy(generated_scenes(SCENES, size, 0)).split(_BATCH)


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted; of more than MOST_IMAGES, that many, evenly spread.

    Raises:
        ValueError: there is none.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(
            f"calibration_images={str(folder)!r} holds no image ({', '.join(sorted(SUFFIXES))}): give a "
            "folder with some dozens of images, or none to use generated scenes"
        )
    count = min(len(paths), MOST_IMAGES)
    return [paths[index * len(paths) // count] for index in range(count)]


def read_images(paths: Iterable[Path], short_side: int) -> Iterator[Tensor]:
    """Read images one by one: (1, H, W, 3) uint8 RGB, resized to a short side in pixels."""
    for path in paths:
        yield torch.tensor(resize_short_side(read_image(path), short_side))[None]


def _fingerprint(paths: Iterable[Path]) -> str:
    """Identify files by what a directory says about them, without reading them."""
    described = [f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _listed(dims: Sequence[int]) -> str:
    return ", ".join(map(str, dims)) or "none"
