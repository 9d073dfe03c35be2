"""What the engine does for a method that declares what it needs, with methods that need no vision model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from rfclip.clip.loader import load_clip
from rfclip.clip.text import load_vocabulary
from rfclip.methods.base import DenseOutput
from rfclip.methods.needs import Given, needs_of
from rfclip.pipeline.engine import DenseEngine
from rfclip.pipeline.prior import Prior
from rfclip.pipeline.settings import Settings
from rfclip.pipeline.windows import Windows

WORDS = load_vocabulary([["sky", "cloud"], "tree", ["car", "van"]])
SIDE = 8  # of the methods' own grid


def pooled(images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Channels of an embedding (B, N, 24) from the mean colours on a grid of patches of 8."""
    height, width = (side // SIDE for side in images.shape[-2:])
    colours = F.avg_pool2d(images[..., : height * SIDE, : width * SIDE], SIDE)
    powers = torch.cat([colours**power for power in range(1, 9)], 1)
    return powers.flatten(2).transpose(1, 2), (height, width)


@dataclass(frozen=True)
class Joined:
    """Embeddings of patches less the mean over all windows of the image."""

    needs: ClassVar[frozenset[str]] = frozenset({"windows"})

    def __call__(self, vit, images, record=None, given=None):
        return DenseOutput.together([self.joined(vit, image[None], record, given) for image in images])

    def joined(self, vit, windows, record=None, given=None):
        parts = [pooled(part) for part in windows.split(given.window_batch)]
        patches, grid = torch.cat([part for part, _ in parts]), parts[0][1]
        patches = F.pad(patches, (0, 1024 - 24), value=0.1)[..., : vit.output_dim]
        return DenseOutput(patches - 0.5 * patches.mean((0, 1)), patches.mean(1), grid)


@dataclass(frozen=True)
class Scored(Joined):
    """Scores that hang on where the windows lie, the words and the picture."""

    needs: ClassVar[frozenset[str]] = frozenset({"text", "windows", "picture"})
    gives_scores: ClassVar[bool] = True

    def joined(self, vit, windows, record=None, given=None):
        dense = super().joined(vit, windows, record, given)
        scores = (given.text @ F.normalize(dense.patches, dim=-1).transpose(1, 2)).unflatten(-1, dense.grid)
        corners = torch.tensor(given.corners, dtype=torch.float32)
        return replace(dense, scores=scores + corners.sum(1)[:, None, None, None])

    def merged(self, maps, given):
        return maps + 10 * given.picture.mean(0)


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny")


@pytest.fixture
def engine(clip):
    def build(method, **settings):
        windows = {"mode": "slide", "crop_size": 48, "stride": 32} | settings.pop("test_cfg", {})
        return DenseEngine(clip, method, Settings(Windows(**windows), **settings))

    return build


def picture(height: int, width: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_all_windows_of_an_image_go_into_one_call(engine) -> None:
    image = picture(70, 100)
    whole = engine(Joined())
    queries = whole.queries(WORDS)
    result = whole.cosine_maps(image, queries)

    boxes = [(y, x) for y in (0, 22) for x in (0, 32, 52)]
    windows = torch.stack([image[0, :, y : y + 48, x : x + 48] for y, x in boxes])
    dense = Joined().joined(whole.visual, windows, None, Given(torch.empty(0, 0), 40.0))
    cosines = queries.text @ F.normalize(dense.patches, dim=-1).transpose(1, 2)
    maps = F.interpolate(cosines.unflatten(-1, (6, 6)), (48, 48), mode="bilinear", align_corners=False)
    total, count = torch.zeros(1, len(queries.text), 70, 100), torch.zeros(70, 100)
    for (y, x), one in zip(boxes, maps, strict=True):
        total[0, :, y : y + 48, x : x + 48] += one
        count[y : y + 48, x : x + 48] += 1
    torch.testing.assert_close(result, total / count)


@pytest.mark.parametrize("method", [Joined(), Scored()])
@pytest.mark.parametrize("size", [(70, 100), (40, 100), (30, 20)])  # the last two are smaller than a window
def test_window_batch_changes_memory_alone_and_a_batch_is_its_images(engine, method, size) -> None:
    images = picture(*size, batch=2)
    one, eight = (engine(method, test_cfg={"window_batch": batch}) for batch in (1, 8))
    queries = one.queries(WORDS)
    result = one.cosine_maps(images, queries)
    assert result.shape == (2, len(queries.text), *size)
    torch.testing.assert_close(result, eight.cosine_maps(images, queries))
    torch.testing.assert_close(result, torch.cat([one.cosine_maps(image[None], queries) for image in images]))


def test_a_whole_image_is_one_window(engine) -> None:
    images = picture(40, 56, batch=2)
    whole, slide = engine(Joined(), test_cfg={"mode": "whole"}), engine(Joined(), test_cfg={"crop_size": 56})
    queries = whole.queries(WORDS)
    torch.testing.assert_close(whole.cosine_maps(images, queries), slide.cosine_maps(images, queries))
    dense = whole.encode(images)
    assert dense.grid == (5, 7) and torch.equal(dense.patches[1:], whole.encode(images[1:]).patches)


def test_only_what_is_declared_is_handed_over(engine) -> None:
    class Listens(Joined):
        def joined(self, vit, windows, record=None, given=None):
            seen.append(given)
            return super().joined(vit, windows, record, given)

    seen: list[Given] = []
    shy = engine(Listens(), test_cfg={"window_batch": 5, "pad_multiple": 28})
    shy.cosine_maps(picture(70, 100), shy.queries(WORDS))
    assert len(seen) == 1 and seen[0].text.shape == (0, 0) and seen[0].picture is None
    assert seen[0].window_batch == 5
    assert seen[0].corners == tuple((y - 4, x - 4) for y in (0, 22) for x in (0, 32, 52))  # 48 -> 56

    class Curious(Listens):
        needs: ClassVar[frozenset[str]] = frozenset({"text", "windows", "picture"})

        def merged(self, maps, given):
            seen.append(given)
            return maps

    seen.clear()
    open_ = engine(Curious(), logit_scale=12.0)
    image, queries = picture(48, 48), open_.queries(WORDS)
    open_.cosine_maps(image, queries)
    rgb = (image[0] * torch.tensor(open_.clip.std).view(3, 1, 1) + torch.tensor(open_.clip.mean).view(3, 1, 1)) / 255
    for given in seen:
        torch.testing.assert_close(given.picture, rgb)
        assert torch.equal(given.text, queries.text) and given.logit_scale == 12.0
    assert len(seen) == 2 and seen[0].corners == ((0, 0),)
    with pytest.raises(ValueError, match="Curious looks at the words"):
        open_.encode(image)


def test_scores_stand_in_place_of_cosines(engine) -> None:
    image = picture(70, 100)
    built = engine(Scored())
    queries = built.queries(WORDS)
    result = built.cosine_maps(image, queries)
    plain = engine(Joined()).cosine_maps(image, queries)
    total, count = torch.zeros(70, 100), torch.zeros(70, 100)
    for y in (0, 22):
        for x in (0, 32, 52):
            total[y : y + 48, x : x + 48] += y + x
            count[y : y + 48, x : x + 48] += 1
    rgb = built.clip.displayable(image)[0].mean(0)
    torch.testing.assert_close(result, plain + total / count + 10 * rgb, atol=1e-4, rtol=1e-4)


def test_scores_of_a_whole_image_are_resized_once(engine) -> None:
    class Unmerged(Scored):
        needs: ClassVar[frozenset[str]] = frozenset({"text", "windows"})

    image = picture(41, 50)
    built = engine(Unmerged(), test_cfg={"mode": "whole"}, patch_fit="pad_black")
    queries = built.queries(WORDS)
    grid = built.cosine_maps(image, queries, on_grid=True)
    assert grid.shape[-2:] == (6, 8)  # of 48 x 64 pixels: the tiny CLIP's patches have 16
    full = built.cosine_maps(image, queries)
    torch.testing.assert_close(full, F.interpolate(grid, (41, 50), mode="bilinear", align_corners=False))
    for other in (
        engine(Scored(), test_cfg={"mode": "whole"}),  # its maps are merged with the picture, pixel by pixel
        engine(Unmerged(), test_cfg={"mode": "whole", "pad_multiple": 21}),  # one row, below, and 13 columns
        engine(Unmerged(), test_cfg={"mode": "slide", "crop_size": 64}),
    ):
        assert other.cosine_maps(image, queries, on_grid=True).shape[-2:] == (41, 50)


def test_embeddings_take_the_prior_and_scores_refuse_it(engine) -> None:
    prior = Prior(1.0, 0.0, 0.1)
    image = picture(70, 100)
    built = engine(Joined(), prior=prior)
    queries = built.queries(WORDS)
    maps = built.cosine_maps(image, queries)
    torch.testing.assert_close(maps, maps[..., :1, :1].expand_as(maps))  # of the whole image, everywhere the same
    scoped = engine(Joined(), prior=replace(prior, scope="window")).cosine_maps(image, queries)
    assert (scoped - maps).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"Scored gives scores.*prior=None"):
        engine(Scored(), prior=prior)


def test_an_unknown_need_is_refused() -> None:
    class Greedy:
        needs = frozenset({"text", "depth"})

    with pytest.raises(ValueError, match=r"Greedy.needs must hold none but 'text', 'windows', 'picture'.*depth"):
        needs_of(Greedy())


def test_what_is_called_for_a_need_must_be_there() -> None:
    class Halfway:
        needs = frozenset({"picture"})

    with pytest.raises(ValueError, match=r"Halfway needs 'picture' and has no merged\(\.\.\.\)"):
        needs_of(Halfway())
