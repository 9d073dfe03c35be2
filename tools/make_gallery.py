"""Make docs/gallery: python tools/make_gallery.py. Everything in that folder comes from this script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout)
import numpy as np
import torch
from sklearn.datasets import load_sample_image

import rfclip
from rfclip.analysis.calibration import calibrated, write_report
from rfclip.analysis.observations import observe, write_observation
from rfclip.cli.arguments import share_clip
from rfclip.explain import examine, style
from rfclip.explain.figures import PLOTS, draw
from rfclip.io import sample_world
from rfclip.methods.distraction import SCENES
from rfclip.segment.api import OpenVocabSegmenter

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "gallery"
WORDS = ("sky", "grass", "cat", "person", "building", "road", "dog", "sea")
PHOTO_WORDS = (("sky",), ("building", "house"), ("tree",), ("water", "sea"))
SCENE_PLOTS = ("labels", "attention", "stripes", "matrix", "distraction", "partition", "budget", "similarity")
PHOTO_PLOTS = ("labels", "attention", "distraction")
INTRODUCTION = """# Gallery

Made by `python tools/make_gallery.py`, with {model}. {remark}

The same for a picture of yours: `rfclip explain photo.jpg --classes "sky, temple|pagoda, tree"`. That also
writes a page in which patches can be clicked.
"""
TINY = (
    "That is the small CLIP that ships with the package. It was trained on drawn scenes, in which a few bright spots, "
    "the glints, become distraction tokens."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every picture, and README.md with all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    share_clip(parser, "tiny", "=openai")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args(arguments)
    rfclip.register()
    segmenter = OpenVocabSegmenter(
        args.model,
        args.pretrained or "openai",
        "cpu",
        short_side=224,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    name = f"`{segmenter.loaded.architecture}`, weights of origin {segmenter.loaded.origin or 'unknown'}"
    parts = [INTRODUCTION.format(model=name, remark=f"{TINY} {segmenter.loaded.note}" if args.model == "tiny" else "")]
    args.out.mkdir(parents=True, exist_ok=True)
    image, point = scene()
    parts.append("## A drawn scene\n")
    parts += explained(segmenter, image, list(WORDS), point, SCENE_PLOTS, args.out, "scene")
    parts.append("## A photograph (china.jpg of scikit-learn)\n")
    photo = load_sample_image("china.jpg")
    parts += explained(segmenter, photo, list(PHOTO_WORDS), None, PHOTO_PLOTS, args.out, "photo")
    parts.append("## What is found without labels\n")
    parts += observed(segmenter, args.out)
    (args.out / "README.md").write_text("\n".join(parts), encoding="utf-8")
    print(args.out / "README.md")
    return 0


def scene() -> tuple[np.ndarray, tuple[float, float]]:
    """A drawn scene, and a point in the middle of its first region."""
    rng = np.random.default_rng(7)
    regions = sample_world.layout((320, 448), len(WORDS), rng)
    image = sample_world.render(regions, list(WORDS), rng, glint_share=0.03).image
    y, x = (float(places.mean()) for places in np.nonzero(regions == 0))
    return image, (x, y)


def explained(
    segmenter: OpenVocabSegmenter,
    image: np.ndarray,
    words: list,
    point: tuple[float, float] | None,
    plots: Sequence[str],
    out: Path,
    stem: str,
) -> list[str]:
    """Write the plots of a picture; returns their part of the README."""
    parts = []
    for name, figure in draw(examine(segmenter, image, words, point), plots).items():
        style.save(figure, out / f"{stem}_{name}.png")
        plot = PLOTS[name]
        parts.append(f"### {plot.title}\n\n{plot.caption}\n\n![{plot.title}]({stem}_{name}.png)\n")
    return parts


def observed(segmenter: OpenVocabSegmenter, out: Path) -> list[str]:
    """Write calibration and observation; returns their part of the README."""
    vit = segmenter.loaded.model.visual
    scenes = torch.from_numpy(sample_world.calibration_images(SCENES, tuple(vit.image_size), 0)).split(1)
    found = calibrated(segmenter.loaded, scenes)
    files = write_report(found, segmenter.loaded, out, f"{SCENES} generated scenes")
    seen = write_observation(observe(segmenter.loaded, scenes[:8], found.dims), out, "8 generated scenes")
    for path in (files[0], files[2], seen[0]):
        path.unlink()  # the gallery shows pictures only
    captions = {
        "profile.png": "Distraction dimensions: `rfclip calibrate`",
        "attention_fit.png": "Distraction goes with attention: `rfclip analyze attention`",
        "attention_share.png": "Attention on distraction tokens, block by block: the same command",
    }
    return [f"### {caption}\n\n![{caption}]({name})\n" for name, caption in captions.items()]


if __name__ == "__main__":
    sys.exit(main())
