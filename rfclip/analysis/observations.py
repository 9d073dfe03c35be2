"""What the paper observes before it proposes anything: phi goes with attention, and channels do not depend on data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfclip.analysis import charts
from rfclip.clip import towers as V
from rfclip.clip.loader import LoadedCLIP
from rfclip.explain import style
from rfclip.explain.recorder import Recorder
from rfclip.io.atomic import write_whole
from rfclip.io.tables import comma_separated, number
from rfclip.methods import RefocusCLIP, VanillaCLIP
from rfclip.methods import distraction as calibrate
from rfclip.refocus import distraction_scores

_MOST_POINTS = 20000  # in a scatter plot
_NAMES = ("residual", "distractors", "attn_qk", "attn_refocused")


@dataclass(frozen=True, eq=False)
class Observation:
    """Patches of some images in L blocks; M patches in all.

    Attributes:
        ratio: (L, M) phi over tau / d as the block begins, in the ordinary CLIP.
        received: (L, M) attention received there, mean over heads and patch queries; 1 = an even share.
        share: (L,) attention on distractors, share of a patch's attention (0..1), in the ordinary CLIP.
        share_before: (L - 1,) the same in the refocused CLIP, before a block's redistribution.
        share_after: (L - 1,) and after it.
    """

    ratio: NDArray[np.float32]
    received: NDArray[np.float32]
    share: NDArray[np.float32]
    share_before: NDArray[np.float32]
    share_after: NDArray[np.float32]

    def fit(self) -> tuple[float, float, float]:
        """Slope, intercept and Pearson's r of received over ratio, over all patches and blocks."""
        x, y = self.ratio.ravel().astype(float), self.received.ravel().astype(float)
        if x.std() == 0 or y.std() == 0:
            return 0.0, float(y.mean()), float("nan")
        slope, intercept = np.polyfit(x, y, 1)
        return float(slope), float(intercept), float(np.corrcoef(x, y)[0, 1])


def observe(
    loaded: LoadedCLIP, images: Iterable[Tensor], dims: Sequence[int], tau: float = 5.0, beta: float = 0.7
) -> Observation:
    """Run the ordinary and the refocused CLIP over images.

    Args:
        loaded: the CLIP.
        images: RGB images, each (1, H, W, 3) uint8.
        dims: distraction dimensions.
        tau: threshold in units of 1/d.
        beta: share that is moved.

    Raises:
        ValueError: there is no image.
    """
    vit = loaded.model.visual
    vanilla, refocus = VanillaCLIP(), RefocusCLIP(distraction_dims=dims, tau=tau, beta=beta)
    blocks = range(V.num_layers(vit))
    columns: dict[str, list[NDArray[np.float32]]] = {
        name: [] for name in ("ratio", "received", "own", "before", "after")
    }
    for inputs in map(loaded.normalised, images):
        plain, refocused = (_recorder(V.width(vit), dims, tau) for _ in range(2))
        vanilla(vit, inputs, record=plain)
        refocus(vit, inputs, record=refocused)
        ratio = torch.stack([plain["residual", layer] for layer in blocks])
        received = plain.stack("attn_qk")  # (L, N)
        columns["ratio"].append(ratio.numpy())
        columns["received"].append((received * received.shape[1]).numpy())
        columns["own"].append((received * (ratio > 1)).sum(1).numpy())
        for moment, name in (("before", "attn_qk"), ("after", "attn_refocused")):
            values = [refocused[name, layer] * refocused["distractors", layer] for layer in blocks[:-1]]
            columns[moment].append(np.array([float(value.sum()) for value in values], np.float32))
    if not columns["ratio"]:
        raise ValueError("there is no image to look at")
    shares = (np.mean(columns[name], axis=0) for name in ("own", "before", "after"))
    return Observation(np.concatenate(columns["ratio"], 1), np.concatenate(columns["received"], 1), *shares)


def _recorder(width: int, dims: Sequence[int], tau: float) -> Recorder:
    """Keeps phi over its threshold, and attention received, of single images."""
    reduce = dict.fromkeys(("attn_qk", "attn_refocused"), lambda attention: attention[1:, 1:].mean(0))
    reduce["residual"] = lambda stream: distraction_scores(stream[1:].float(), dims) * width / tau
    return Recorder(_NAMES, heads="mean", image=0, reduce=reduce)


def write_observation(found: Observation, folder: Path, source: str) -> list[Path]:
    """Write attention.csv (a line per block), attention_fit.png and attention_share.png; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("attention.csv", "attention_fit.png", "attention_share.png")]
    slope, intercept, correlation = found.fit()
    blocks = style.layer_names(range(len(found.share)))
    heads = ["block", "pearson_r", "attention_on_distractors_%", "refocused_before_%", "refocused_after_%"]
    rows = []
    for layer, name in enumerate(blocks):
        r = Observation(found.ratio[[layer]], found.received[[layer]], *(np.zeros(1, np.float32),) * 3).fit()[2]
        shares = (found.share, found.share_before, found.share_after)
        cells = (number(100 * part[layer] if layer < len(part) else None, 3) for part in shares)
        rows.append([name, number(r, 4), *cells, source])
    write_whole(paths[0], comma_separated([*heads, "measured_on"], rows))
    chosen = np.random.default_rng(0).permutation(found.ratio.size)[:_MOST_POINTS]
    points = [values.ravel()[chosen] for values in (found.ratio, found.received)]
    title = f"Distraction against attention received: {source}"
    style.save(charts.scatter_with_fit(points[0], points[1], slope, intercept, correlation, title), paths[1])
    series = {
        "CLIP": 100 * found.share,
        "refocused CLIP, before a block's redistribution": 100 * found.share_before,
        "refocused CLIP, after it": 100 * found.share_after,
    }
    title = f"Attention on distraction tokens: {source}"
    style.save(charts.lines(blocks, series, "% of a patch's attention", title), paths[2])
    return paths


def consistency(loaded: LoadedCLIP, sets: Mapping[str, Iterable[Tensor]]) -> dict[str, calibrate.ChannelStatistics]:
    """Channel statistics of each data set: name -> RGB images, each (1, H, W, 3) uint8."""
    vit = loaded.model.visual
    return {name: calibrate.measure(vit, map(loaded.normalised, images)) for name, images in sets.items()}


def write_consistency(found: Mapping[str, calibrate.ChannelStatistics], folder: Path, model: str) -> list[Path]:
    """Write consistency.csv (a line per data set and channel) and consistency.png (agreement of the sets)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "consistency.csv", folder / "consistency.png"]
    dims = {name: calibrate.pick_peaks(one.profile, one.crossings) for name, one in found.items()}
    channels = sorted({dim for chosen in dims.values() for dim in chosen})
    rows = [
        [name, channel, f"{float(one.profile[channel]) * len(one.profile):.4f}", int(channel in dims[name])]
        for name, one in found.items()
        for channel in channels
    ]
    write_whole(paths[0], comma_separated(["data_set", "channel", "share_1/d", "chosen"], rows))
    agreement = np.array([[calibrate.agreement(a, b) for b in dims.values()] for a in dims.values()])
    title = f"Distraction dimensions found on different data, {model}"
    style.save(charts.agreement_matrix(list(dims), [len(one) for one in dims.values()], agreement, title), paths[1])
    return paths
