"""A report on the distraction dimensions of a CLIP: profile, chosen channels, agreement of two halves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rfclip.analysis import charts
from rfclip.clip import towers as V
from rfclip.clip.loader import LoadedCLIP
from rfclip.explain import style
from rfclip.io.atomic import write_whole
from rfclip.io.tables import comma_separated
from rfclip.methods import distraction as calibrate
from rfclip.methods.distraction import ChannelStatistics


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a calibration found.

    Attributes:
        whole: statistics of all images.
        halves: of the images with even and of those with odd numbers.
        dims: the chosen channels, by the rule of rfclip/methods/distraction.py.
        half_dims: what either half alone would choose.
        images: how many there were.
    """

    whole: ChannelStatistics
    halves: tuple[ChannelStatistics, ChannelStatistics]
    dims: tuple[int, ...]
    half_dims: tuple[tuple[int, ...], tuple[int, ...]]
    images: int

    @property
    def agreement(self) -> float:
        """Channels that both halves choose over those that either chooses, 0..1."""
        return calibrate.agreement(*self.half_dims)


def calibrated(loaded: LoadedCLIP, images: Iterable[Tensor]) -> Calibration:
    """Measure a CLIP's channels.

    Args:
        loaded: the CLIP.
        images: RGB images, each (1, H, W, 3) uint8, of any sizes.

    Raises:
        ValueError: fewer than two images, which make no halves.
    """
    vit = loaded.model.visual
    found: list[list[ChannelStatistics]] = [[], []]
    weights: list[list[int]] = [[], []]
    for number, image in enumerate(map(loaded.normalised, images)):
        found[number % 2].append(calibrate.measure(vit, [image]))
        height, width = (max(1, side // V.patch_size(vit)) for side in image.shape[-2:])
        weights[number % 2].append(height * width)
    if not found[1]:
        raise ValueError(f"{len(found[0])} image is too few to compare two halves: give at least two, better dozens")
    first, second = (_mean(part, weight) for part, weight in zip(found, weights, strict=True))
    whole = _mean([*found[0], *found[1]], [*weights[0], *weights[1]])
    dims, *half_dims = (calibrate.pick_peaks(one.profile, one.crossings) for one in (whole, first, second))
    count = len(found[0]) + len(found[1])
    return Calibration(whole, (first, second), dims, (half_dims[0], half_dims[1]), count)


def write_report(calibration: Calibration, loaded: LoadedCLIP, folder: Path, images: str) -> list[Path]:
    """Write profile.csv, profile.png and distraction_dims.json (a data file of this CLIP alone) into a folder.

    Args:
        calibration: what was found.
        loaded: the CLIP.
        folder: made if it is not there.
        images: a few words on what was looked at, for the plot.

    Returns:
        The paths that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "profile.csv", folder / "profile.png", folder / "distraction_dims.json"]
    whole, width = calibration.whole, len(calibration.whole.profile)
    heads = ["channel", "share_1/d", "patches_above_5/d_%", "share_first_half", "share_second_half", "chosen"]
    rows = []
    for channel in range(width):
        share, *halves = (f"{float(one.profile[channel]) * width:.4f}" for one in (whole, *calibration.halves))
        above = f"{100 * float(whole.crossings[channel]):.4f}"
        rows.append([channel, share, above, *halves, int(channel in calibration.dims)])
    write_whole(paths[0], comma_separated(heads, rows))
    limits = (_peak_limit(whole.profile) * width, calibrate.CROSSING_SHARE)
    title = f"Channels of {loaded.architecture} on {images}; halves agree on {100 * calibration.agreement:.0f} %"
    profile, crossings = (whole.profile * width).numpy(), whole.crossings.numpy()
    style.save(charts.channel_profile(profile, crossings, calibration.dims, limits, title), paths[1])
    paths[2].unlink(missing_ok=True)
    add_to_data_file(paths[2], loaded, calibration.dims)
    return paths


def add_to_data_file(path: Path, loaded: LoadedCLIP, dims: tuple[int, ...]) -> None:
    """Enter channels in a data file, architecture -> weights hash -> channels; 'auto' reads the shipped one.

    Raises:
        ValueError: the file is there and is no such file.
    """
    table: dict[str, dict[str, list[int]]] = {}
    if path.exists():
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            table.setdefault(loaded.architecture, {})
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no data file of distraction dimensions: {error}") from error
    table.setdefault(loaded.architecture, {})[loaded.weights_hash] = list(dims)
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table.items()]
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def rule() -> str:
    """The rule by which channels are chosen, in a sentence."""
    return (
        f"a channel is chosen if its mean share is above {calibrate.PEAK_SHARE:g}/d and more than "
        f"{calibrate.PEAK_DEVIATIONS:g} robust standard deviations above the median, or if more than "
        f"{100 * calibrate.CROSSING_SHARE:g} % of the patches have more than {calibrate.CROSSING:g}/d in it"
    )


def _peak_limit(profile: Tensor) -> float:
    """The share above which a channel peaks (see rfclip/methods/distraction.py)."""
    median = profile.median()
    deviation = 1.4826 * (profile - median).abs().median()
    return max(calibrate.PEAK_SHARE / len(profile), float(median + calibrate.PEAK_DEVIATIONS * deviation))


def _mean(parts: list[ChannelStatistics], weights: list[int]) -> ChannelStatistics:
    """Mean of images' statistics, every patch counting the same."""
    share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    profile, crossings = (
        (share[:, None] * torch.stack([getattr(part, name) for part in parts])).sum(0)
        for name in ("profile", "crossings")
    )
    return ChannelStatistics(profile, crossings)
