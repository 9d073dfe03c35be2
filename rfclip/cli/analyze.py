"""rfclip analyze ablation --benchmarks voc21 [--sample]: the paper's analyses on data of yours."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config, listed
from rfclip.cli.arguments import benchmarks, share, share_clip, with_sample
from rfclip.cli.processes import make_sample, options_of

if TYPE_CHECKING:
    from mmengine.config import Config

    from rfclip.clip.loader import LoadedCLIP

OBSERVATIONS = ("attention", "consistency")
MOST_LOOKED_AT = 32  # images, unless --limit says otherwise


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    tables = listed("analysis")
    parser.description = (
        "Measure one of the paper's tables, or look at what it observes. Writes a CSV and plots, with the published "
        "values beside where there are any."
    )
    parser.epilog = (
        "attention: phi against attention received, and the share of attention on distraction tokens in each layer. "
        f"consistency: the channels that different data sets give. Tables: {', '.join(tables)} (configs/analysis)."
    )
    parser.add_argument("analysis", help=f"{', '.join((*OBSERVATIONS, *tables))}, or a config of your own")
    parser.add_argument(
        "--benchmarks", type=benchmarks, default=["voc21"], help=f"of {','.join(BENCHMARKS)}; or all (default: voc21)"
    )
    share(parser, "sample", "data_root", "limit")
    share_clip(parser, "=the config's; with --sample tiny", "=the config's")
    share(parser, "short_side", "out", short_side=336, out=Path("analysis"))
    return with_sample(parser.parse_args(arguments))


def run(args: argparse.Namespace) -> int:
    """Run the analysis, and name the files."""
    make_sample(args)
    for path in analyze(args):
        print(path)
    return 0


def analyze(args: argparse.Namespace) -> list[Path]:
    """Run the analysis; returns what was written."""
    from rfclip.analysis.observations import consistency, observe, write_consistency, write_observation
    from rfclip.analysis.tables import Setting, load_analysis, measure, write_table
    from rfclip.methods.distraction import resolve_distraction_dims

    if args.analysis == "attention":
        loaded = load(args)
        images = (image for name in args.benchmarks for image in read(args, name))
        found = observe(loaded, images, resolve_distraction_dims(loaded))
        looked_at = source(args, loaded.architecture, ", ".join(args.benchmarks), args.limit or MOST_LOOKED_AT)
        return write_observation(found, args.out, looked_at)
    if args.analysis == "consistency":
        loaded = load(args)
        found_dims = consistency(loaded, {name: read(args, name) for name in args.benchmarks})
        return write_consistency(found_dims, args.out, loaded.architecture)
    analysis = load_analysis(args.analysis)
    setting = Setting(
        tuple(args.benchmarks),
        args.model,
        args.pretrained,
        args.data_root,
        args.limit,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    measured = measure(analysis, setting, args.out)
    return write_table(analysis, measured, args.out, source(args, args.model or "ViT-B-16", "your data", args.limit))


def config(args: argparse.Namespace, benchmark: str) -> Config:
    """The benchmark's config with the options merged in."""
    from rfclip.benchmarks.options import build_config

    return build_config(options_of(args, benchmark_config(benchmark)))


def load(args: argparse.Namespace) -> LoadedCLIP:
    """The CLIP that the options ask for."""
    from rfclip.clip.loader import load_clip

    return load_clip(**config(args, args.benchmarks[0]).model.clip)


def read(args: argparse.Namespace, benchmark: str) -> Iterator:
    """The first images of a benchmark, (1, H, W, 3) uint8 each."""
    from rfclip.benchmarks.listing import list_dataset
    from rfclip.methods.distraction import read_images

    dataset = list_dataset(config(args, benchmark))
    count = min(len(dataset), args.limit or MOST_LOOKED_AT)
    return read_images((Path(dataset.get_data_info(i)["img_path"]) for i in range(count)), args.short_side)


def source(args: argparse.Namespace, model: str, data: str, limit: int | None) -> str:
    """A few words on what was measured on."""
    shown = f", first {limit} images" if limit else ""
    return f"{model}, {'generated sample' if args.sample else data}{shown}"
