"""rfclip calibrate [FOLDER] --model M --pretrained P: find the distraction dimensions of a CLIP."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfclip.cli.arguments import at_least_one, share, share_clip


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Find the channels that mark distraction tokens, from the weights of a CLIP and images without labels. Prints "
        "them and the rule by which they are chosen; writes profile.csv, profile.png and distraction_dims.json."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder of images; default: generated scenes")
    share_clip(parser, "ViT-B-16", "=openai")
    share(parser, "out", "short_side", out=Path("calibrated"), short_side="=the model's own size")
    parser.add_argument("--scenes", type=at_least_one, default=32, help="generated scenes, without a folder")
    parser.add_argument(
        "--update",
        action="store_true",
        help="also enter the channels in the package's distraction_dims.json, which 'auto' reads",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Calibrate and report."""
    import torch

    from rfclip.analysis.calibration import add_to_data_file, calibrated, rule, write_report
    from rfclip.clip.loader import load_clip
    from rfclip.clip.sources import brings_weights
    from rfclip.io.sample_world import calibration_images
    from rfclip.methods import distraction as calibrate

    pretrained = args.pretrained or (None if brings_weights(args.model) else "openai")
    loaded = load_clip(args.model, pretrained, quick_gelu=args.quick_gelu, origin=args.origin)
    visual: Any = loaded.model.visual
    size: tuple[int, int] = tuple(visual.image_size)
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
    return 0
