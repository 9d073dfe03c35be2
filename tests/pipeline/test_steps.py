"""The steps between a dense method and the labels, with a stand-in for the method."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rfclip.clip.text import load_vocabulary
from rfclip.methods.base import DenseOutput
from rfclip.pipeline import prior as prior_steps
from rfclip.pipeline import settings as settings_module
from rfclip.pipeline import steps as pipeline
from rfclip.pipeline.prior import Prior, twins_of
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings
from rfclip.pipeline.windows import Windows
from rfclip.refiners import PAMR, Refiner, TextLaplacian
from tests.support.log import keep_log

PATCH = 8
WORDS = load_vocabulary([["sky", "cloud"], "tree", ["car", "van", "bus"]])


def encode(images: torch.Tensor) -> DenseOutput:
    """Mean colour of each whole patch and its square; the image embedding is their mean."""
    height, width = (side // PATCH for side in images.shape[-2:])
    pooled = F.avg_pool2d(images[..., : height * PATCH, : width * PATCH], PATCH)
    patches = torch.cat([pooled, pooled**2, torch.ones_like(pooled[:, :1])], 1).flatten(2).transpose(1, 2)
    return DenseOutput(patches, patches.mean(1), (height, width))


@pytest.fixture
def text() -> torch.Tensor:
    return F.normalize(torch.randn(len(WORDS.queries), 7, generator=torch.Generator().manual_seed(0)), dim=-1)


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def maps(settings: Settings, text: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    return pipeline.cosine_maps(encode, pictures, Queries.of(text, WORDS, settings), settings, PATCH)


def _piece_maps(
    piece: torch.Tensor, queries: Queries, settings: Settings, similarity: torch.Tensor | None
) -> torch.Tensor:
    """Cosines of one window (1, 3, h, w) with names that the prior has shifted, and its share added."""
    dense = encode(piece)
    patches = F.normalize(dense.patches, dim=-1)
    text, chosen = queries.text, settings.prior
    if chosen is not None:
        shared = F.normalize(dense.image, dim=-1) @ text.T if similarity is None else similarity
        text = prior_steps.shift_text(text, patches, shared, queries.clusters, chosen.mean_vector_weight)
    maps = (text @ patches.transpose(1, 2)).unflatten(-1, dense.grid)
    if chosen is not None:
        maps = prior_steps.blend(maps, shared, chosen.image_weight)
    return F.interpolate(maps, piece.shape[-2:], mode="bilinear", align_corners=False)


def test_whole_image_is_cosine_then_bilinear(text: torch.Tensor) -> None:
    pictures = images(2, 32, 48)
    dense = encode(pictures)
    cosines = F.cosine_similarity(dense.patches[:, :, None], text[None, None], dim=-1)  # (B, N, Q)
    grid = cosines.transpose(1, 2).reshape(2, len(text), 4, 6)
    expected = F.interpolate(grid, (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps(Settings(Windows()), text, pictures), expected)


@pytest.mark.parametrize("prior", [None, Prior(0.3, 0.1, 0.5), Prior(0.3, 0.1, 0.5, scope="window")])
def test_windows_are_encoded_apart_and_averaged(text: torch.Tensor, prior: Prior | None) -> None:
    whole = Settings(Windows(), prior=prior)
    slide = replace(whole, windows=Windows("slide", crop_size=24, stride=16, window_batch=3))
    picture = images(1, 40, 56)
    queries = Queries.of(text, WORDS, slide)
    total, count = torch.zeros(1, len(text), 40, 56), torch.zeros(40, 56)
    for y in (0, 16):
        for x in (0, 16, 32):
            piece = picture[..., y : y + 24, x : x + 24]
            shared = None
            if prior is not None and prior.scope == "image":
                shared = F.normalize(encode(picture).image, dim=-1) @ text.T
            total[..., y : y + 24, x : x + 24] += _piece_maps(piece, queries, slide, shared)
            count[y : y + 24, x : x + 24] += 1
    torch.testing.assert_close(maps(slide, text, picture), total / count)


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize(
    "prior", [None, Prior(0.3, 0.0, 0.1), Prior(0.3, 0.2, 0.1), Prior(0.3, 0.2, 0.0, scope="window")]
)
@pytest.mark.parametrize("count", [2, 5, 6, 9, 20])
def test_of_equal_names_the_first_wins_wherever_they_stand(count: int, prior: Prior | None, mode: str) -> None:
    """Three times the same names: the second and third are the same map; where no prior moves the first, all are."""
    words = load_vocabulary([f"name {n % count}" for n in range(3 * count)])
    settings = Settings(Windows(mode, crop_size=40, stride=24, window_batch=3), prior=prior)
    names = F.normalize(torch.randn(count, 7, generator=torch.Generator().manual_seed(count)), dim=-1)
    queries = Queries.of(names.repeat(3, 1), words, settings)
    pictures = images(3, 56, 72)
    cosines = pipeline.cosine_maps(encode, pictures, queries, settings, PATCH)
    first, second, third = cosines.split(count, 1)
    assert torch.equal(second, third)
    moves = prior is not None and prior.mean_vector_weight > 0
    assert torch.equal(first, second) is not moves
    for picture, alone in zip(pictures, cosines, strict=True):
        single = pipeline.cosine_maps(encode, picture[None], queries, settings, PATCH)[0]
        torch.testing.assert_close(single, alone)
        winners = pipeline.label_image(alone, picture, (61, 45), queries, settings).labels
        assert winners.max() < (2 * count if moves else count)


def test_equal_names_have_equal_cosines_whatever_a_product_rounds() -> None:
    """At 512 numbers a row the plain product gives some of these twins different last bits."""
    for count in (2, 5, 6, 10, 21):
        generator = torch.Generator().manual_seed(count)
        text = F.normalize(torch.randn(count, 512, generator=generator), dim=-1).repeat(2, 1)
        queries = Queries(text, tuple(range(2 * count)), 2 * count, None, twins_of(text))
        for _ in range(20):
            image, patches = torch.randn(1, 512, generator=generator), torch.randn(1, 1, 512, generator=generator)
            plain = F.normalize(image, dim=-1) @ text.T
            first, second = queries.similarity(image).split(count, 1)
            assert torch.equal(first, second)
            torch.testing.assert_close(first, plain[:, :count])
            first, second = queries.cosines(text, patches).split(count, 1)
            assert torch.equal(first, second)
            moved = text.expand(1, -1, -1).clone()
            moved[0, 0] = -moved[0, 0]
            cosines = queries.cosines(moved, patches)
            torch.testing.assert_close(cosines, moved @ patches.transpose(1, 2))
            assert torch.equal(cosines[:, 1:count], cosines[:, count + 1 :])


def test_whole_image_is_asked_for_its_embedding_alone(text: torch.Tensor) -> None:
    settings = Settings(Windows("slide", crop_size=24, stride=16), prior=Prior(0.3, 0.1, 0.5))
    pictures, queries = images(2, 40, 56), Queries.of(text, WORDS, settings)
    seen: list[torch.Size] = []

    def windows_only(pieces: torch.Tensor) -> DenseOutput:
        seen.append(pieces.shape[-2:])
        return encode(pieces)

    def whole_only(pieces: torch.Tensor) -> torch.Tensor:
        assert pieces.shape == (1, 3, 40, 56)
        return encode(pieces).image

    result = pipeline.cosine_maps(windows_only, pictures, queries, settings, PATCH, whole_only)
    assert set(seen) == {(24, 24)}
    torch.testing.assert_close(result, maps(settings, text, pictures))


def test_prior_scopes_differ_only_with_several_windows(text: torch.Tensor) -> None:
    image, window = (
        Settings(Windows("slide", 24, 16), prior=Prior(0.4, 0.1, 0.5, scope=s)) for s in ("image", "window")
    )
    small, large = images(1, 24, 20), images(1, 40, 56)
    torch.testing.assert_close(maps(image, text, small), maps(window, text, small))
    assert (maps(image, text, large) - maps(window, text, large)).abs().max() > 1e-3


def test_prior_moves_logits_towards_the_image(text: torch.Tensor) -> None:
    picture = images(1, 32, 48)
    settings = Settings(Windows(), prior=Prior(image_weight=1.0, mean_vector_weight=0.0, cluster_threshold=0.1))
    similarity = F.cosine_similarity(encode(picture).image, text)
    result = maps(settings, text, picture)
    torch.testing.assert_close(result, similarity[None, :, None, None].expand_as(result))


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_batch_of_two_is_two_batches_of_one(text: torch.Tensor, mode: str, fit: str) -> None:
    settings = Settings(Windows(mode, 24, 16, 5), prior=Prior(0.3, 0.1, 0.5), patch_fit=fit)
    pictures = images(2, 37, 53)
    result = maps(settings, text, pictures)
    assert result.shape == (2, len(text), 37, 53)
    torch.testing.assert_close(result, torch.cat([maps(settings, text, one[None]) for one in pictures]))


def test_crop_stretches_the_grid_and_pad_repeats_the_border(text: torch.Tensor) -> None:
    picture = images(1, 37, 53)
    crop = maps(Settings(Windows(), patch_fit="crop"), text, picture)
    seen = maps(Settings(Windows()), text, picture[..., :32, :48])
    grid = F.interpolate(seen, (4, 6), mode="area")
    assert crop.shape == (1, len(text), 37, 53)
    assert grid.shape[-2:] == (4, 6)
    corner = picture.clone()
    corner[..., 32:, :] = 9
    torch.testing.assert_close(maps(Settings(Windows(), patch_fit="crop"), text, corner), crop)
    padded = F.pad(picture, (0, 3, 0, 3), mode="replicate")
    expected = maps(Settings(Windows()), text, padded)[..., :37, :53]
    torch.testing.assert_close(maps(Settings(Windows(), patch_fit="pad"), text, picture), expected)


@pytest.mark.parametrize("refiner", [PAMR(num_iter=2, dilations=(1, 2)), TextLaplacian(grid=16)])
def test_label_image_scales_refines_and_takes_the_best_alias(text: torch.Tensor, refiner: Refiner) -> None:
    picture = images(1, 32, 48)
    settings = Settings(Windows(), refiner=refiner)
    queries = Queries.of(text, WORDS, settings)
    cosines = maps(settings, text, picture)[0]
    result = pipeline.label_image(cosines, picture[0], (50, 70), queries, settings)
    large = F.interpolate(cosines[None], (50, 70), mode="bilinear", align_corners=False)
    seen = F.interpolate(picture, (50, 70), mode="bilinear", align_corners=False)
    refined = refiner.prepare(seen, queries.text)(large)[0]
    probs = (40 * refined).softmax(0)
    best = torch.stack([probs[[i for i, c in enumerate(WORDS.query_class) if c == k]].amax(0) for k in range(3)])
    torch.testing.assert_close(result.probs, best)
    assert torch.equal(result.labels, best.argmax(0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "slid"}, "slid"),
        ({"crop_size": 0}, "crop_size"),
        ({"stride": 2.5}, "2.5"),
        ({"window_batch": True}, "window_batch"),
        ({"crop_size": 100, "stride": 101}, "in no window"),
        ({"pad_multiple": 0}, "pad_multiple"),
        ({"pad_multiple": 5.6}, "5.6"),
    ],
)
def test_bad_windows(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Windows(**arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patch_fit": "stretch"}, "stretch"),
        ({"logit_scale": 0}, "logit_scale"),
        ({"prob_thd": 1.5}, "1.5"),
        ({"prob_thd": float("nan")}, "nan"),
        ({"prob_thd": 0.1}, "background_index"),
        ({"background_index": 1.0}, "background_index must be a whole number"),
        ({"keep_probs": 1}, r"keep_probs \(in configs keep_seg_logits\) must be True or False, got 1"),
        ({"alias_aggregation": "sum"}, "alias_aggregation must be one of 'max', 'mean', 'logsumexp', got 'sum'"),
        ({"area_thd": 2, "background_index": 0}, "area_thd must be a number in 0..1, got 2"),
        ({"area_thd": 0.1}, "area_thd=0.1.*must be class 0: give background_index=0, got None"),
        ({"area_thd": 0.1, "background_index": 1}, "background_index=0, got 1; or leave area_thd out"),
    ],
)
def test_bad_settings(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(Windows(), **arguments)


def test_another_background_than_the_class_of_that_name_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    keep_log(monkeypatch, settings_module, lambda message, _: log.append(message))
    words, settings = load_vocabulary(["tree", "background"]), Settings(Windows(), prob_thd=0.1, background_index=0)
    replace(settings, background_index=1).check_vocabulary(words, None)
    assert log == []
    settings.check_vocabulary(words, None)
    assert len(log) == 1 and "Class 1 is called 'background', but prob_thd=0.1 turns pixels into 'tree'" in log[0]


def test_threshold_needs_a_vocabulary_with_background() -> None:
    settings = Settings(Windows(), prob_thd=0.1, background_index=0)
    settings.check_vocabulary(load_vocabulary("voc21"), "voc21")
    settings.check_vocabulary(WORDS, ["sky"])
    settings.check_vocabulary(WORDS, "mine.txt")  # whose rows only its owner knows
    with pytest.raises(ValueError, match=r"voc20.*no background"):
        settings.check_vocabulary(load_vocabulary("voc20"), "voc20")
    with pytest.raises(ValueError, match=r"voc21.*its background in class 0.*'boat'.*set background_index=0"):
        replace(settings, background_index=4).check_vocabulary(load_vocabulary("voc21"), "voc21")
    small = Settings(Windows(), area_thd=0.1, background_index=0)
    small.check_vocabulary(load_vocabulary("voc21"), "voc21")
    with pytest.raises(ValueError, match=r"voc20.*no background class, so area_thd=0.1 turns.*set area_thd=None"):
        small.check_vocabulary(load_vocabulary("voc20"), "voc20")
    with pytest.raises(ValueError, match="none of the 3 classes"):
        replace(settings, background_index=3).check_vocabulary(WORDS, "words.txt")
