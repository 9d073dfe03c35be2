"""A small world of generated scenes in which every class name has its own look.

The sample benchmarks (rfclip prepare sample), the training scenes of the tiny CLIP
(tools/train_tiny_clip.py) and the default calibration images are all drawn from it. A *look* is a pair of
colours and a stripe pattern fine enough to be told within one 16 x 16 patch; a *scene* is a plane divided into
regions, each filled with one look, with a few *glints* (small bright spots that belong to no class) on top.

Spellings of one name ("traffic light", "trafficlight", "traffic-light") share a look; see :func:`canonical`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rfclip.data import DATA

NAMES_FILE = DATA / "sample_world.json"
PATTERNS = ("plain", "horizontal", "vertical", "falling", "rising", "checker")
PERIOD = 8.0  # pixels from stripe to stripe, before any resize
GLINT_RADIUS = 5.0  # pixels
_LEVELS = (35.0, 128.0, 220.0)


@dataclass(frozen=True)
class Look:
    """How a name appears: two RGB colours (0..255) and the pattern in which they alternate."""

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    pattern: str


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        regions: (H, W) int64, the index of the region under each pixel.
        glints: (H, W) bool, pixels covered by a glint.
    """

    image: np.ndarray
    regions: np.ndarray
    glints: np.ndarray


def canonical(name: str) -> str:
    """The letters and digits of a name in lower case: what its spellings have in common."""
    return "".join(c for c in name.lower() if c.isalnum())


@lru_cache(maxsize=1)
def known_names() -> tuple[str, ...]:
    """All canonical names of this world, in the order that fixes their looks (rfclip/data/sample_world.json)."""
    return tuple(json.loads(NAMES_FILE.read_text(encoding="utf-8"))["names"])


@lru_cache(maxsize=1)
def looks() -> dict[str, Look]:
    """Canonical name -> look, chosen so that no two looks are close (farthest-point selection)."""
    candidates = _candidates()
    chosen = _farthest_points(np.stack([_appearance(c) for c in candidates]), len(known_names()))
    return {name: candidates[i] for name, i in zip(known_names(), chosen, strict=True)}


def look(name: str) -> Look:
    """The look of a name in any of its spellings.

    Raises:
        KeyError: the name is not part of this world.
    """
    try:
        return looks()[canonical(name)]
    except KeyError:
        raise KeyError(
            f"the sample world has no look for {name!r}; it knows the names of the shipped vocabularies "
            f"({NAMES_FILE.name})"
        ) from None


def layout(size: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Divide a plane into `count` roundish regions with wavy borders.

    Args:
        size: (height, width) in pixels.
        count: number of regions.
        rng: source of all randomness.

    Returns:
        (H, W) int64 region indices 0..count-1: a Voronoi diagram of seeds evened out by Lloyd's algorithm.
    """
    height, width = size
    seeds = rng.uniform(0.08, 0.92, (count, 2)) * (height, width)
    coarse = np.stack([*np.mgrid[0 : height : height / 40, 0 : width : width / 40]], -1).reshape(-1, 2)
    for _ in range(6):
        owner = _nearest(coarse, seeds)
        seeds = np.stack([coarse[owner == i].mean(0) if (owner == i).any() else seeds[i] for i in range(count)])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = min(size) * 0.012
    phase_y, phase_x = rng.uniform(0, 2 * np.pi, 2)
    warped = np.stack([y + wave * np.sin(x / (4 * wave) + phase_y), x + wave * np.sin(y / (4 * wave) + phase_x)], -1)
    return _nearest(warped.reshape(-1, 2), seeds).reshape(height, width)


def render(
    regions: np.ndarray,
    names: list[str],
    rng: np.random.Generator,
    glint_share: float = 0.04,
    period: float = PERIOD,
) -> Scene:
    """Fill each region with the look of its name and sprinkle glints.

    Args:
        regions: (H, W) integers 0..len(names)-1.
        names: one name per region, any spelling.
        rng: source of all randomness (stripe phase, brightness, noise, glints).
        glint_share: expected share of 16 x 16 patches with a glint, 0..1.
        period: stripe period in pixels.

    Returns:
        The scene; `regions` is not modified.
    """
    height, width = regions.shape
    chosen = [look(name) for name in names]
    light = rng.uniform(0.92, 1.08, (len(names), 1))
    first = np.array([c.first for c in chosen], np.float32) * light
    second = np.array([c.second for c in chosen], np.float32) * light
    kind = np.array([PATTERNS.index(c.pattern) for c in chosen])
    share = _stripes(height, width, period, rng)[kind[regions], np.arange(height)[:, None], np.arange(width)[None]]
    image = first[regions] + share[..., None] * (second - first)[regions]
    image += rng.normal(0, 5, (height, width, 1))
    glints = _draw_glints(image, rng, rng.poisson(glint_share * height * width / 256))
    return Scene(image.clip(0, 255).astype(np.uint8), regions, glints)


def calibration_images(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Seeded scenes of random names.

    Args:
        count: number of images.
        size: (height, width) in pixels.
        seed: the same seed gives the same images.

    Returns:
        (count, H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        regions = layout(size, 10, rng)
        images.append(render(regions, list(rng.choice(known_names(), 10)), rng).image)
    return np.stack(images)


def _nearest(points: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Index of the seed nearest to each (y, x) point."""
    best = np.full(len(points), np.inf)
    owner = np.zeros(len(points), np.int64)
    for i, seed in enumerate(seeds):
        distance = ((points - seed) ** 2).sum(-1)
        owner[distance < best] = i
        np.minimum(best, distance, out=best)
    return owner


def _stripes(height: int, width: int, period: float, rng: np.random.Generator) -> np.ndarray:
    """(patterns, H, W) share of the second colour, 0..1, in the order of PATTERNS."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    turn = 2 * np.pi / period
    phase = rng.uniform(0, 2 * np.pi, 6)
    diagonal = turn / np.sqrt(2)
    waves = [
        np.full((height, width), -1.0, np.float32),
        np.sin(turn * y + phase[0]),
        np.sin(turn * x + phase[1]),
        np.sin(diagonal * (x - y) + phase[2]),
        np.sin(diagonal * (x + y) + phase[3]),
        np.sign(np.sin(turn * x + phase[4]) * np.sin(turn * y + phase[5])),
    ]
    return 0.5 + 0.5 * np.stack(waves).astype(np.float32)


def _draw_glints(image: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw white spots with a dark rim into `image` (in place); returns the (H, W) mask of their pixels."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool)
    reach = int(np.ceil(GLINT_RADIUS))
    for cy, cx in zip(rng.uniform(0, height, count), rng.uniform(0, width, count), strict=True):
        top, left = max(0, int(cy) - reach), max(0, int(cx) - reach)
        y, x = np.mgrid[top : min(height, int(cy) + reach + 1), left : min(width, int(cx) + reach + 1)]
        distance = np.hypot(y + 0.5 - cy, x + 0.5 - cx)
        patch = image[y[0, 0] : y[-1, 0] + 1, x[0, 0] : x[0, -1] + 1]
        patch[distance < GLINT_RADIUS] = 10
        patch[distance < GLINT_RADIUS * 0.65] = 250
        mask[y[0, 0] : y[-1, 0] + 1, x[0, 0] : x[0, -1] + 1] |= distance < GLINT_RADIUS
    return mask


def _candidates() -> list[Look]:
    """Every pair of colours in every pattern."""
    colours = [(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS]
    plain = [Look(c, c, "plain") for c in colours]
    pairs = [(a, b) for i, a in enumerate(colours) for b in colours[i + 1 :]]
    return plain + [Look(a, b, pattern) for pattern in PATTERNS[1:] for a, b in pairs]


def _appearance(candidate: Look) -> np.ndarray:
    """What one patch shows of a look: its mean colour, and the colour contrast filed under the pattern."""
    first, second = np.array(candidate.first), np.array(candidate.second)
    difference = first - second
    contrast = np.outer(difference, difference)[np.triu_indices(3)] / max(np.linalg.norm(difference), 1.0)
    filed = np.zeros((len(PATTERNS), 6))
    filed[PATTERNS.index(candidate.pattern)] = 0.5 * contrast
    return np.concatenate([(first + second) / 2, filed.ravel()])


def _farthest_points(points: np.ndarray, count: int) -> list[int]:
    """Indices of `count` points, each the farthest from those before it, starting at the first."""
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen
