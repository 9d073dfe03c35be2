"""rfclip audit --benchmark voc21 [--sample]: what class names do to a benchmark's score."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.cli.arguments import PROTOCOL, share, share_clip, with_sample
from rfclip.cli.processes import make_sample

if TYPE_CHECKING:
    from mmengine.config import Config

    from rfclip.analysis import charts
    from rfclip.analysis.audit import Audit, Labelled
    from rfclip.plugin.segmentor import RFCLIP
    from rfclip.words.vocabulary import Vocabulary


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "Score a benchmark with the published names, the clean ones, the data set's own as plain words, "
        "and lists of yours; leave the published names out one by one; show which names win pixels of other classes. "
        "Writes audit_BENCHMARK.csv and audit_BENCHMARK.png."
    )
    parser.add_argument("--benchmark", default="voc21", choices=BENCHMARKS, help="the data set")
    parser.add_argument("--vocabulary", action="append", default=[], metavar="FILE", help="a list of yours; repeatable")
    share(parser, "sample", "data_root", "limit")
    share_clip(parser, "=the config's; with --sample tiny", "=the config's")
    share(parser, "method", "protocol", "out", method="=the config's", protocol=PROTOCOL, out=Path("audit"))
    parser.add_argument("--keep-all-names", action="store_true", help="do not leave names out one by one")
    return with_sample(parser.parse_args(arguments))


def run(args: argparse.Namespace) -> int:
    """Audit, write table and plot, and name the files."""
    from mmseg.registry import MODELS

    from rfclip.analysis.audit import audit, write_table
    from rfclip.benchmarks.listing import list_dataset
    from rfclip.benchmarks.options import Options, build_config
    from rfclip.explain import style

    make_sample(args)
    options = Options(
        benchmark_config(args.benchmark),
        args.pretrained,
        args.model,
        args.method,
        data_root=args.data_root,
        quick_gelu=args.quick_gelu,
        origin=args.origin,
        protocol=args.protocol,
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
    for path in paths:
        print(path)
    return 0


def vocabularies(args: argparse.Namespace) -> dict[str, Vocabulary]:
    """The vocabularies to compare, the published one first."""
    from rfclip.words.lists import plain_vocabulary
    from rfclip.words.vocabulary import Vocabulary, load_vocabulary

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
    from mmseg.registry import DATASETS
    from tqdm import tqdm

    from rfclip.analysis.audit import Labelled

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
    import numpy as np

    from rfclip.analysis import charts

    wrong = found.wrong_pixels()
    order = [query for query in np.argsort(-wrong, kind="stable") if wrong[query]]
    names = [f"{found.names[query][1]} ({found.classes[found.names[query][0]]})" for query in order]
    share = 100 * wrong[order] / max(int(found.won.sum()), 1)
    totals = [found.total(name) for name in found.iou]
    return charts.vocabulary_audit(dict(found.iou), totals, found.classes, names, share, title)
