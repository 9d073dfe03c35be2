"""One pass of a dense method over one picture, with everything that the figures show of it, as arrays."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rfclip.checks import check_indices
from rfclip.clip import towers as V
from rfclip.clip.precision import own_precision
from rfclip.clip.text import load_vocabulary
from rfclip.explain.recorder import Recorder
from rfclip.io.images import ImageSource, cut_clause, path_of, read_with_notes, resize_short_side
from rfclip.methods.base import DenseOutput
from rfclip.methods.distraction import resolve_distraction_dims
from rfclip.methods.replay import Replay
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.fitting import Fit
from rfclip.pipeline.labels import resize
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.windows import Windows
from rfclip.refocus import distraction_scores
from rfclip.segment.api import Names, OpenVocabSegmenter
from rfclip.words.vocabulary import Vocabulary

LOG = logging.getLogger(__name__)

MOST_PATCHES = 800  # larger grids are not legible, and their attention matrices make pages of many megabytes
MOST_LAYERS = 12
_TAU = 5.0  # for methods that have no threshold of their own: the paper's
_NAMES = (
    *("residual", "distractors", "defocus", "attn_qk", "attn_refocused", "attn_dense", "attn_dense_refocused"),
    "vision_similarity",
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a method did with a picture. L shown layers, N = h*w patches in raster order, C classes.

    The patches are those that the picture fills; a last row or column that padding fills up is in none of the arrays.

    Attributes:
        image: (H, W, 3) uint8 RGB, the picture.
        seen: (h*P, w*P, 3) uint8 RGB, what the grid covers of the resized picture.
        grid: (h, w).
        layers: the L 0-based layers.
        before: (L, N, N) float32 attention between patches, mean over heads, as the block computes it; in the last
            layer the attention behind the dense output. Rows are queries; the class token takes the rest.
        after: (L, N, N) the same after redistribution, or None where the method does not redistribute attention.
        ratio: (L + 1, N) distraction phi over its threshold tau / d, where each shown layer begins; the last row is
            the end of the last block.
        distractors: (L, N) the distractors as the layer begins.
        defocus: (L, N) the defocused patches, or None where the method has none.
        similarity: (C, h, w) cosine of each patch with the best name of each class, or the method's own score.
        without: (H, W) labels of the baseline.
        labels: (H, W) labels of the method.
        names: C class names.
        colours: C colours (r, g, b), 0..255.
        methods: names of the baseline and the method.
        point: (row, column) of the patch that was asked for.
        padding: a clause on what padding has to do with the patches; '' where nothing was padded.
        source: the file of the picture; None: not known.
        notes: clauses on what was guessed or cut in reading the picture, as in a Segmentation.
        vision: (N, N) cosines between the patches by the method's vision model, or None where it has none or does
            not show them.
    """

    image: NDArray[np.uint8]
    seen: NDArray[np.uint8]
    grid: tuple[int, int]
    layers: tuple[int, ...]
    before: NDArray[np.float32]
    after: NDArray[np.float32] | None
    ratio: NDArray[np.float32]
    distractors: NDArray[np.bool_]
    defocus: NDArray[np.bool_] | None
    similarity: NDArray[np.float32]
    without: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    methods: tuple[str, str]
    point: tuple[int, int]
    padding: str = ""
    source: Path | None = None
    notes: tuple[str, ...] = ()
    vision: NDArray[np.float32] | None = None

    def received(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Attention that each patch receives, mean over the patch queries: (L, N) before and after."""
        return self.before.mean(1), None if self.after is None else self.after.mean(1)

    def on_distractors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Share of a patch's attention that lies on distractors, mean over the patches: (L,) before and after."""
        after = self.before if self.after is None else self.after
        before, after = ((m * self.distractors[:, None]).sum(-1).mean(-1) for m in (self.before, after))
        return before, after


@own_precision
def examine(
    segmenter: OpenVocabSegmenter,
    image: ImageSource,
    classes: Names,
    point: tuple[float, float] | None = None,
    layers: Sequence[int] | None = None,
    baseline: Mapping[str, Any] | None = None,
) -> Explanation:
    """Run a segmenter's method over a picture as a whole, without windows, and keep what the figures show.

    Args:
        segmenter: model, method and settings; its windows are not used.
        image: a path, a PIL image or an (H, W, 3) uint8 RGB array.
        classes: class names, a list of aliases per class, a shipped vocabulary, its file, or a Vocabulary.
        point: (x, y) in pixels of the picture; None: its middle.
        layers: 0-based layers to show; None: all, or MOST_LAYERS evenly spread.
        baseline: method block of the labels to compare with; None: MeanKK, the method without its three steps.

    Raises:
        ValueError: the point lies outside the picture, or a layer does not exist.
    """
    picture, clauses = read_with_notes(image)
    vit = segmenter.loaded.model.visual
    shown = shown_layers(layers, V.num_layers(vit))
    view = _view(segmenter, picture)
    patch = locate_point(point, picture.shape[:2], view)
    vocabulary = classes if isinstance(classes, Vocabulary) else load_vocabulary(classes)
    settings = dataclasses.replace(segmenter.settings, windows=Windows("whole"), keep_probs=False)
    engine = dataclasses.replace(segmenter.engine, settings=settings)
    reference = engine.with_method(baseline or {"type": "MeanKK"})
    queries, recorder = engine.queries(vocabulary, classes), _recorder(segmenter, shown)
    size = (picture.shape[0], picture.shape[1])
    whole_grid = view.whole_grid(engine.patch)
    without, _ = _run(reference, view, size, queries, None)
    labels, dense = _run(engine, view, size, queries, recorder)
    return Explanation(
        image=picture,
        seen=view.seen,
        grid=view.grid,
        layers=shown,
        **_arrays(recorder, shown, V.num_layers(vit), view.filled(engine.patch), dense.grid, whole_grid),
        similarity=_class_similarity(dense, queries, whole_grid)[:, : view.grid[0], : view.grid[1]],
        without=without,
        labels=labels,
        names=vocabulary.classes,
        colours=vocabulary.colours,
        methods=(type(reference.method).__name__, type(engine.method).__name__),
        point=patch,
        padding=view.padding,
        source=path_of(image),
        notes=(*clauses, *filter(None, [view.cut])),
    )


@dataclass(frozen=True, eq=False)
class View:
    """What the network is given of a picture.

    Attributes:
        inputs: (1, 3, H, W) the resized picture, normalised.
        fitted: the same in whole patches, as the segmenter's patch_fit says.
        seen: (h*P, w*P, 3) uint8 RGB, what the shown patches cover.
        grid: (h, w) of the patches that the picture fills; of a picture slimmer than a patch, the padded ones.
        padding: as in an Explanation.
        cut: a clause if the wish for a short side was cut, or None.
    """

    inputs: Tensor
    fitted: Tensor
    seen: NDArray[np.uint8]
    grid: tuple[int, int]
    padding: str
    cut: str | None

    def whole_grid(self, patch: int) -> tuple[int, int]:
        """The image tower's grid (h', w'), padded patches included."""
        return self.fitted.shape[-2] // patch, self.fitted.shape[-1] // patch

    def filled(self, patch: int) -> Tensor:
        """Which patches of the image tower's grid are shown: (h'*w',) bool."""
        grid = self.whole_grid(patch)
        rows, columns = (torch.arange(there) < shown for there, shown in zip(grid, self.grid, strict=True))
        return (rows[:, None] & columns).flatten()


def locate_point(point: tuple[float, float] | None, size: tuple[int, ...], view: View) -> tuple[int, int]:
    """Find the patch (row, column) under a point of the picture, or the nearest one if that is not shown.

    Args:
        point: (x, y) in pixels of the picture, from (0, 0) at the top left; None: the middle.
        size: (H, W) of the picture.
        view: what the network is given.

    Raises:
        ValueError: the point is not in the picture.
    """
    x, y = (size[1] / 2, size[0] / 2) if point is None else point
    if not (0 <= x < size[1] and 0 <= y < size[0]):
        raise ValueError(f"point {x:g},{y:g} is not in the picture: x is in 0..{size[1] - 1}, y in 0..{size[0] - 1}")
    height, width = view.inputs.shape[-2:]
    row = int(y / size[0] * height * view.grid[0] / view.seen.shape[0])
    column = int(x / size[1] * width * view.grid[1] / view.seen.shape[1])
    return min(row, view.grid[0] - 1), min(column, view.grid[1] - 1)


def shown_layers(layers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Check 0-based layers of a model that has `count`; None: all, or MOST_LAYERS evenly spread.

    Raises:
        ValueError: a layer does not exist.
    """
    if layers is None:
        shown = min(count, MOST_LAYERS)
        return tuple(round(index * (count - 1) / max(shown - 1, 1)) for index in range(shown))
    chosen = tuple(sorted(set(check_indices("layers", layers))))
    if not chosen or chosen[-1] >= count:
        raise ValueError(f"layers {list(layers)} are not all among the layers 0..{count - 1} of this model")
    return chosen


def _view(segmenter: OpenVocabSegmenter, picture: NDArray[np.uint8]) -> View:
    """Resize to the segmenter's short side, or to less if the patches would be too many; normalise; fit."""
    side = V.patch_size(segmenter.loaded.model.visual)
    resized = resize_short_side(picture, segmenter.short_side)
    cut = cut_clause((resized.shape[0], resized.shape[1]), segmenter.short_side)
    patches = resized.shape[0] * resized.shape[1] / side**2
    if patches > MOST_PATCHES:
        short = max(side, int(min(resized.shape[:2]) * (MOST_PATCHES / patches) ** 0.5))
        LOG.info(f"Explained at a short side of {short} pixels: {patches:.0f} patches are too many.")
        resized = resize_short_side(picture, short)
    inputs = segmenter.loaded.normalised(torch.tensor(resized.copy())[None]).to(segmenter.device)
    fitted = Fit(side, segmenter.settings.patch_fit, black=segmenter.engine.black)(inputs)
    slim = [max(0, side - length) for length in fitted.shape[-2:]]
    fitted = F.pad(fitted, (0, slim[1], 0, slim[0]), mode="replicate")
    bottom, right = (there - length for there, length in zip(fitted.shape[-2:], resized.shape[:2], strict=True))
    grid = (max(1, resized.shape[0] // side), max(1, resized.shape[1] // side))
    seen = np.pad(resized, ((0, bottom), (0, right), (0, 0)), mode="edge")[: grid[0] * side, : grid[1] * side]
    return View(inputs, fitted, seen, grid, _padding(resized.shape, side, (bottom, right)), cut)


def _padding(size: tuple[int, ...], side: int, added: tuple[int, int]) -> str:
    """The clause for a picture (H, W), patches of a side, and so many pixels added to its height and width."""
    if min(size[:2]) < side:
        return (
            f"the picture, {size[1]} x {size[0]} pixels for the network, is slimmer than a patch: padding fills it up"
        )
    left_out = [name for name, pixels in zip(("row", "column"), added, strict=True) if pixels]
    return f"without the last {' and '.join(left_out)}, which padding fills in part" if left_out else ""


def _recorder(segmenter: OpenVocabSegmenter, shown: tuple[int, ...]) -> Recorder:
    """A recorder of the first image's attention between patches, and of phi over tau / d in place of the stream."""
    vit = segmenter.loaded.model.visual
    dims = getattr(segmenter.method, "distraction_dims", None)
    if dims is None:
        dims = resolve_distraction_dims(segmenter.loaded)
    threshold = max(getattr(segmenter.method, "tau", _TAU), 1e-6) / V.width(vit)
    reduce = dict.fromkeys(("attn_qk", "attn_refocused"), lambda attention: attention[1:, 1:])
    reduce["residual"] = lambda stream: distraction_scores(stream[1:].float(), dims) / threshold
    return Recorder(_NAMES, layers=[*shown, V.num_layers(vit)], heads="mean", image=0, reduce=reduce)


def _arrays(
    recorder: Recorder,
    shown: tuple[int, ...],
    count: int,
    filled: Tensor,
    own: tuple[int, int],
    grid: tuple[int, int],
) -> dict[str, Any]:
    """Put what was recorded of the patches that are filled, (N,) bool, into the arrays of an Explanation.

    The attention behind the dense output may stand on a grid of the method's `own`; all else does on `grid`.
    """
    pairs = [_attention(recorder, layer, layer == count - 1, own, grid) for layer in shown]
    before, after = (
        torch.stack([matrix[filled][:, filled].float() for matrix in matrices])
        for matrices in ([given for given, _ in pairs], [given if moved is None else moved for given, moved in pairs])
    )
    has_after = any(moved is not None for _, moved in pairs)
    ratio = torch.stack([recorder["residual", layer] for layer in (*shown, count)])
    given = all(("distractors", layer) in recorder for layer in shown)
    distractors = torch.stack([recorder["distractors", layer] for layer in shown]) if given else ratio[:-1] > 1
    vision = recorder.get("vision_similarity")
    cuts = [recorder["defocus", layer] for layer in shown if ("defocus", layer) in recorder]
    return {
        "before": before.numpy(),
        "after": after.numpy() if has_after else None,
        "ratio": ratio[:, filled].numpy(),
        "distractors": distractors[:, filled].numpy(),
        "defocus": torch.stack(cuts)[:, filled].numpy() if len(cuts) == len(shown) else None,
        "vision": None if vision is None else averaged(vision, own, grid)[filled][:, filled].float().numpy(),
    }


def _attention(
    recorder: Recorder, layer: int, last: bool, own: tuple[int, int], grid: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """Attention between patches (N, N) in a layer, and the same redistributed, if it was."""
    if last and "attn_dense" in recorder:
        if own != grid:
            return regridded(recorder["attn_dense"], own, grid), None
        patches = recorder["attn_qk", layer].shape[0]
        return recorder["attn_dense"][-patches:, -patches:], recorder.get("attn_dense_refocused")
    return recorder["attn_qk", layer], recorder.get("attn_refocused", layer)


def regridded(attention: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Bring attention (N', N') between patches of one grid to another, (N, N): means over queries, sums over keys.

    Example:
        >>> regridded(torch.full((4, 4), 0.25), (2, 2), (1, 1))
        tensor([[1.]])
    """
    queries = averaged(attention, own, grid)
    return queries * (len(attention) / len(queries))


def averaged(matrix: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Bring a matrix (N', N') between patches of one grid to another, (N, N): means over both."""
    columns = F.adaptive_avg_pool2d(matrix.unflatten(1, own), grid).flatten(1)  # (N', N)
    return F.adaptive_avg_pool2d(columns.T.unflatten(1, own), grid).flatten(1).T


def _run(
    engine: DenseEngine, view: View, size: tuple[int, int], queries: Queries, recorder: Recorder | None
) -> tuple[NDArray[np.int64], DenseOutput]:
    """Labels (H, W) by the engine's own steps, and the output that they were made of."""
    kept = Replay(engine.method)
    replayed = dataclasses.replace(engine, method=kept)
    dense = replayed.encode(view.fitted, recorder, queries)
    kept.again()
    maps = replayed.cosine_maps(view.inputs, queries, on_grid=True)
    return engine.label_image(maps[0], view.inputs[0], size, queries).labels.cpu().numpy(), dense


def _class_similarity(dense: DenseOutput, queries: Queries, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Cosines (C, h, w) with the best name of each class, or the scores that stand in their place, on a grid."""
    own = dense.grid if dense.scores is None else (dense.scores.shape[-2], dense.scores.shape[-1])
    if dense.scores is None:
        cosines = F.normalize(dense.patches[0].float(), dim=-1) @ queries.text.T  # (N, Q)
    else:
        cosines = dense.scores[0].flatten(1).T.float()
    index = torch.tensor(queries.query_class, device=cosines.device).expand_as(cosines)
    best = cosines.new_full((len(cosines), queries.num_classes), -2).scatter_reduce(1, index, cosines, "amax")
    return resize(best.T.unflatten(1, own), grid).cpu().numpy()
