"""What class names do to a benchmark's score: python tools/audit_vocabulary.py --benchmark voc21 [--sample]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import _checkout  # noqa: F401  (finds this checkout, before mmseg)
import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from tqdm import tqdm

from rfclip.analysis import charts
from rfclip.analysis.audit import Audit, Labelled, audit, plain_vocabulary, write_table
from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.benchmarks.listing import list_dataset
from rfclip.benchmarks.options import Options, add_clip_options, build_config
from rfclip.explain import style
from rfclip.plugin.segmentor import RFCLIP
from rfclip.runs.run import UserError
from rfclip.words.vocabulary import Vocabulary, load_vocabulary

SAMPLE = Path("data/sample")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Score a benchmark with the published names, the clean ones, the data set's own as plain words, "
        "and lists of yours; leave the published names out one by one; show which names win pixels of other classes. "
        "Writes audit_BENCHMARK.csv and audit_BENCHMARK.png."
    )
    parser.add_argument("--benchmark", default="voc21", choices=BENCHMARKS)
    parser.add_argument("--vocabulary", action="append", default=[], metavar="FILE", help="a list of yours; repeatable")
    parser.add_argument("--sample", action="store_true", help="the generated miniature benchmarks, the tiny CLIP")
    parser.add_argument("--data-root", help="folder that stands for the configs' data/")
    parser.add_argument("--model", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--checkpoint", help="CLIP weights: an open_clip tag or a local file")
    add_clip_options(parser)
    parser.add_argument("--profile", help="paper (default), release, or a baseline")
    parser.add_argument("--limit", type=int, help="score the first so many images only")
    parser.add_argument("--keep-all-names", action="store_true", help="do not leave names out one by one")
    parser.add_argument("--out", type=Path, default=Path("audit"), help="folder of the results")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parsed = parser.parse_args(arguments)
    if parsed.sample:
        parsed.model = parsed.model or ("tiny" if parsed.checkpoint is None else None)
        parsed.data_root = parsed.data_root or str(SAMPLE)
    return parsed


def run(args: argparse.Namespace) -> list[Path]:
    """Audit, and write table and plot."""
    options = Options(
        benchmark_config(args.benchmark),
        args.checkpoint,
        args.model,
        args.profile,
        data_root=args.data_root,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
    )
    cfg = build_config(options)
    list_dataset(cfg)  # says what is missing
    words = vocabularies(args)
    model = MODELS.build(cfg.model)
    found = audit(model.engine, pictures(cfg, model, args.limit), words, leave_out=not args.keep_all_names)
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [args.out / f"audit_{args.benchmark}.{ending}" for ending in ("csv", "png")]
    write_table(found, paths[0])
    data = "generated sample" if args.sample else "your data"
    title = f"Class names and the score: {args.benchmark}, {data}, {model.loaded.architecture}"
    style.save(plot(found, title), paths[1])
    for name in found.iou:
        print(f"{name}: mIoU {found.total(name):.2f}")
    return paths


def vocabularies(args: argparse.Namespace) -> dict[str, Vocabulary]:
    """The vocabularies to compare, the published one first."""
    shipped = load_vocabulary(args.benchmark)
    named = {
        "published": shipped,
        "clean": load_vocabulary(f"{args.benchmark}_clean"),
        "plain": plain_vocabulary(shipped),
    }
    for spec in args.vocabulary:
        own = load_vocabulary(spec)
        named[Path(spec).stem] = Vocabulary(own.names, shipped.classes, shipped.colours, shipped.background)
    return named


def pictures(cfg: Config, model: RFCLIP, limit: int | None) -> Iterator[Labelled]:
    """The benchmark's images with their truth, as the benchmark's run sees them."""
    settings = {**cfg.test_dataloader.dataset, "test_mode": True}
    dataset = DATASETS.build({**settings, "indices": limit} if limit else settings)
    for index in tqdm(range(len(dataset)), unit="image", disable=None):
        data = dataset[index]
        batch = {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}
        inputs = model.data_preprocessor(batch, False)["inputs"]
        truth = data["data_samples"].gt_sem_seg.data[0]
        yield Labelled(data["data_samples"].img_path, inputs, truth)


def plot(found: Audit, title: str) -> charts.Figure:
    """The figure of an audit: scores, and the names that win most wrong pixels."""
    wrong = found.wrong_pixels()
    order = [query for query in np.argsort(-wrong, kind="stable") if wrong[query]]
    names = [f"{found.names[query][1]} ({found.classes[found.names[query][0]]})" for query in order]
    share = 100 * wrong[order] / max(int(found.won.sum()), 1)
    totals = [found.total(name) for name in found.iou]
    return charts.vocabulary_audit(dict(found.iou), totals, found.classes, names, share, title)


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
