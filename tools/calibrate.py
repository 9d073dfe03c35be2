"""Find the distraction dimensions of a CLIP: python tools/calibrate.py [FOLDER] --model M --pretrained P."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)
import torch

from rfclip.analysis.calibration import add_to_data_file, calibrated, rule, write_report
from rfclip.benchmarks.options import add_clip_options
from rfclip.clip.loader import brings_weights, load_clip
from rfclip.io.sample_world import calibration_images
from rfclip.methods import distraction as calibrate


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Find the channels that mark distraction tokens, from the weights of a CLIP and images without "
        f"labels. The rule: {rule()}. Writes profile.csv, profile.png and distraction_dims.json."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder of images; default: generated scenes")
    parser.add_argument("--model", default="ViT-B-16", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--pretrained", help="open_clip tag or weights file (default: openai)")
    add_clip_options(parser)
    parser.add_argument("--out", type=Path, default=Path("calibrated"), help="folder of the results")
    parser.add_argument("--scenes", type=int, default=calibrate.SCENES, help="generated scenes, without a folder")
    parser.add_argument("--short-side", type=int, help="pixels of the images' short side; default: the model's own")
    parser.add_argument(
        "--update",
        action="store_true",
        help=f"also enter the channels in the package's {calibrate.DATA_FILE.name}, which 'auto' reads",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    """Calibrate and report."""
    pretrained = args.pretrained or (None if brings_weights(args.model) else "openai")
    loaded = load_clip(args.model, pretrained, quick_gelu=args.quick_gelu, origin=args.origin)
    size = tuple(loaded.model.visual.image_size)
    if args.folder is None:
        images = iter(torch.from_numpy(calibration_images(args.scenes, size, 0)).split(1))
        source = f"{args.scenes} generated scenes"
    else:
        paths = calibrate.image_files(args.folder)
        images = calibrate.read_images(paths, args.short_side or min(size))
        source = f"{len(paths)} images of {args.folder.name}"
    found = calibrated(loaded, images)
    for path in write_report(found, loaded, args.out, source):
        print(path)
    listed = [", ".join(map(str, dims)) or "none" for dims in (found.dims, *found.half_dims)]
    print(f"distraction dimensions of {loaded.architecture}: {listed[0]}")
    print(f"either half of the images: {listed[1]} | {listed[2]}; agreement {100 * found.agreement:.0f} %")
    print(f"rule: {rule()}")
    if args.update:
        add_to_data_file(calibrate.DATA_FILE, loaded, found.dims)
        print(f"entered in {calibrate.DATA_FILE}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one sentence."""
    args = parse(arguments)
    try:
        run(args)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
