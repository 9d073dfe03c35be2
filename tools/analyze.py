"""The paper's analyses on data of yours: python tools/analyze.py ablation --benchmarks voc21 [--sample]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)
from mmengine.config import Config

from rfclip.analysis.observations import consistency, observe, write_consistency, write_observation
from rfclip.analysis.tables import Setting, analyses, load_analysis, measure, write_table
from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.benchmarks.listing import list_dataset
from rfclip.benchmarks.options import Options, add_clip_options, build_config
from rfclip.clip.loader import LoadedCLIP, load_clip
from rfclip.methods.distraction import read_images, resolve_distraction_dims
from rfclip.runs.run import UserError

OBSERVATIONS = ("attention", "consistency")
SAMPLE = Path("data/sample")
MOST_LOOKED_AT = 32  # images, unless --limit says otherwise


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measure one of the paper's tables, or look at what it observes. Writes a CSV and plots, with the "
        "published values beside where there are any.",
        epilog="attention: phi against attention received, and the share of attention on distraction tokens in each "
        f"layer. consistency: the channels that different data sets give. Tables: {', '.join(analyses())} "
        "(configs/analysis).",
    )
    parser.add_argument("analysis", help=f"{', '.join((*OBSERVATIONS, *analyses()))}, or a config of your own")
    parser.add_argument("--benchmarks", type=names, default=["voc21"], help=f"of {','.join(BENCHMARKS)}; or all")
    parser.add_argument("--sample", action="store_true", help="the generated miniature benchmarks, the tiny CLIP")
    parser.add_argument("--data-root", help="folder that stands for the configs' data/")
    parser.add_argument("--model", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--checkpoint", help="CLIP weights: an open_clip tag or a local file")
    add_clip_options(parser)
    parser.add_argument("--limit", type=int, help="look at the first so many images of each benchmark only")
    parser.add_argument("--short-side", type=int, default=336, help="pixels, for attention and consistency")
    parser.add_argument("--out", type=Path, default=Path("analysis"), help="folder of the results")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parsed = parser.parse_args(arguments)
    if parsed.sample:
        parsed.model = parsed.model or ("tiny" if parsed.checkpoint is None else None)
        parsed.data_root = parsed.data_root or str(SAMPLE)
    return parsed


def names(text: str) -> list[str]:
    """'voc21,ade20k' -> ['voc21', 'ade20k']; 'all' -> all benchmarks."""
    return list(BENCHMARKS) if text == "all" else [part.strip() for part in text.split(",")]


def run(args: argparse.Namespace) -> list[Path]:
    """Run the analysis; returns what was written."""
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
        args.checkpoint,
        args.data_root,
        args.limit,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    measured = measure(analysis, setting, args.out)
    return write_table(analysis, measured, args.out, source(args, args.model or "ViT-B-16", "your data", args.limit))


def config(args: argparse.Namespace, benchmark: str) -> Config:
    """The benchmark's config with the options merged in."""
    options = Options(
        benchmark_config(benchmark),
        args.checkpoint,
        args.model,
        data_root=args.data_root,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    return build_config(options)


def load(args: argparse.Namespace) -> LoadedCLIP:
    """The CLIP that the options ask for."""
    return load_clip(**config(args, args.benchmarks[0]).model.clip)


def read(args: argparse.Namespace, benchmark: str) -> Iterator:
    """The first images of a benchmark, (1, H, W, 3) uint8 each."""
    dataset = list_dataset(config(args, benchmark))
    count = min(len(dataset), args.limit or MOST_LOOKED_AT)
    return read_images((Path(dataset.get_data_info(i)["img_path"]) for i in range(count)), args.short_side)


def source(args: argparse.Namespace, model: str, data: str, limit: int | None) -> str:
    """A few words on what was measured on."""
    shown = f", first {limit} images" if limit else ""
    return f"{model}, {'generated sample' if args.sample else data}{shown}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one sentence."""
    args = parse(arguments)
    try:
        for path in run(args):
            print(path)
    except (UserError, OSError, ValueError, TypeError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
