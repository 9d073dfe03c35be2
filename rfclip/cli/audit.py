"""rfclip audit --benchmark voc21 [--sample]: what class names do to a benchmark's score, list by list, name by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rfclip.benchmarks.configs import BENCHMARKS, benchmark_config
from rfclip.cli.arguments import PROTOCOL, at_least_one, benchmarks, share, share_clip, with_sample
from rfclip.cli.processes import make_sample, options_of

if TYPE_CHECKING:
    from mmengine.config import Config

    from rfclip.analysis import audit_charts
    from rfclip.analysis.audit import Audit, Labelled
    from rfclip.analysis.audit_report import List
    from rfclip.plugin.segmentor import RFCLIP
    from rfclip.words.vocabulary import Vocabulary

WORDS = 20  # distractors


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = (
        "The vocabulary report: score benchmarks with the published names, the clean ones, the data set's own as plain "
        "words, each class by its other aliases, lists of yours, and with distractor words of what is not there; say "
        "what each is worth, with intervals over the images (OUT/audit.json, .csv, .md, .png). Of each benchmark, "
        "OUT/audit_BENCHMARK.csv and .png have every class, the score without each published name, and the names that "
        "win pixels of other classes."
    )
    parser.add_argument(
        "--benchmark", type=benchmarks, default=["voc21"], help=f"of {','.join(BENCHMARKS)}, by commas; or all (voc21)"
    )
    parser.add_argument(
        "--vocabulary",
        action="append",
        default=[],
        metavar="FILE",
        help="a list of yours, synonyms say; repeatable; {} in the path stands for the benchmark",
    )
    parser.add_argument(
        "--distractors",
        default=str(WORDS),
        metavar="N|FILE",
        help="words of what is not there: so many names of other benchmarks that no list of this one has, or those of "
        "a vocabulary file; they are further names of the background, or, without one, of a further class; 0: none",
    )
    share(parser, "sample", "data_root", "limit")
    share_clip(parser, "=the config's; with --sample tiny", "=the config's")
    share(parser, "method", "protocol", "out", method="=the config's", protocol=PROTOCOL, out=Path("audit"))
    parser.add_argument("--resamples", type=at_least_one, default=2000, metavar="N", help="draws for the intervals")
    parser.add_argument(
        "--keep-all-names", action="store_true", help="do not leave names out one by one; so with several benchmarks"
    )
    args = parser.parse_args(arguments)
    args.skips = args.benchmark == list(BENCHMARKS)
    unknown = [name for name in args.benchmark if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}'; there are {', '.join(BENCHMARKS)}")
    args.benchmark = list(dict.fromkeys(args.benchmark))
    return with_sample(args)


def run(args: argparse.Namespace) -> int:
    """Audit, write tables and plots, and name the files."""
    from rfclip.analysis.audit_report import Report, as_text, write
    from rfclip.checks import UserError
    from rfclip.segment.files import prepare_folder

    make_sample(args)
    prepare_folder(args.out)
    audits, lists, paths = {}, {}, []
    for number, benchmark in enumerate(args.benchmark, 1):
        print(f"[{number}/{len(args.benchmark)}] {benchmark}", flush=True)
        missing = lacking(args, benchmark) if args.skips else None
        if missing is not None:
            print(f"left out: {missing}", file=sys.stderr)
            continue
        own = vocabularies(args, benchmark)
        audits[benchmark], about, written = one(args, benchmark, own)
        lists[benchmark] = own
        paths += written
        report = Report(audits, lists, about)
        written = write(report, args.out)
    if not audits:
        raise UserError("no benchmark has data (--sample needs none)")
    print("\n" + as_text(report) + "\n")
    for path in [*paths, *written]:
        print(path)
    return 0


def config_of(args: argparse.Namespace, benchmark: str) -> Config:
    """The benchmark's config with all options."""
    from rfclip.benchmarks.options import build_config

    return build_config(options_of(args, benchmark_config(benchmark), profile=args.method, protocol=args.protocol))


def lacking(args: argparse.Namespace, benchmark: str) -> str | None:
    """What of a benchmark's data is not there, a sentence; None if it is."""
    from rfclip.benchmarks.datasets import missing_data

    return missing_data(config_of(args, benchmark).test_dataloader.dataset)


def one(args: argparse.Namespace, benchmark: str, lists: dict[str, List]) -> tuple[Audit, str, list[Path]]:
    """Audit a benchmark and write its own table and plot; also what was measured, in words."""
    from mmseg.registry import MODELS

    from rfclip.analysis.audit import audit, write_table
    from rfclip.benchmarks.configs import profile_name
    from rfclip.benchmarks.listing import list_dataset
    from rfclip.explain import style

    cfg = config_of(args, benchmark)
    list_dataset(cfg)  # says what is missing
    model = MODELS.build(cfg.model)
    leave_out = not args.keep_all_names and len(args.benchmark) == 1
    words = {name: one.words for name, one in lists.items()}
    found = audit(model.engine, pictures(cfg, model, args.limit), words, leave_out, args.resamples)
    paths = [args.out / f"audit_{benchmark}.{ending}" for ending in ("csv", "png")]
    write_table(found, paths[0])
    data = "the generated sample, which says nothing about real data" if args.sample else "your data"
    if args.limit is not None:
        data += f", the first {args.limit} images of each benchmark"
    method = profile_name(cfg.model.get("method", {}))
    with_what = f"{method}, {model.loaded.architecture}, protocol {cfg.get('protocol')}"
    style.save(plot(found, f"Class names and the score: {benchmark}, {with_what}; {data}"), paths[1])
    return found, f"What class names are worth: {with_what}; {data}.", paths


def vocabularies(args: argparse.Namespace, benchmark: str) -> dict[str, List]:
    """The lists to compare, the published one first."""
    from rfclip.analysis.audit_report import List
    from rfclip.words.lists import other_aliases, plain_vocabulary, with_distractors
    from rfclip.words.vocabulary import load_vocabulary

    shipped, clean = load_vocabulary(config_of(args, benchmark).model.vocabulary), load_vocabulary(f"{benchmark}_clean")
    plain, other = plain_vocabulary(shipped), other_aliases(shipped)
    named = {
        "published": List(shipped, "the field's list, as config and protocol have it"),
        "clean": List(clean, "the same classes with sound names"),
        "plain": List(plain, "the data set's own class names, no aliases"),
    }
    if other != shipped:
        named["other aliases"] = List(other, "each class by its published names but the first, where it has several")
    for spec in args.vocabulary:
        own = load_vocabulary(spec.replace("{}", benchmark))
        named[Path(spec).stem] = List(replace(shipped, names=own.names), f"of {Path(spec).name}")
    words = distractors(args.distractors, benchmark, (shipped, clean, plain))
    where = "names of a further class" if shipped.background is None else "further names of the background"
    for name in ("published", "plain") if words else ():
        what = f"{name}, and {len(words)} words of what is not there as {where}: {', '.join(words)}"
        named[f"{name} + distractors"] = List(with_distractors(named[name].words, words), what)
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


def plot(found: Audit, title: str) -> audit_charts.Figure:
    """The figure of an audit: scores, and the names that win most wrong pixels."""
    import numpy as np

    from rfclip.analysis import audit_charts

    wrong = found.wrong_pixels()
    order = [query for query in np.argsort(-wrong, kind="stable") if wrong[query]]
    names = [f"{found.names[query][1]} ({found.classes[found.names[query][0]]})" for query in order]
    share = 100 * wrong[order] / max(int(found.won.sum()), 1)
    totals = [found.total(name) for name in found.iou]
    return audit_charts.vocabulary_audit(dict(found.iou), totals, found.classes, names, share, title)


def distractors(asked: str, benchmark: str, known: Sequence[Vocabulary]) -> tuple[str, ...]:
    """The words that `--distractors` means for a benchmark.

    Raises:
        ValueError: No list has that name, or a number below 0.
    """
    from rfclip.words.lists import distractor_words
    from rfclip.words.vocabulary import load_vocabulary

    if asked.removeprefix("-").isdecimal() and asked.startswith("-"):
        raise ValueError(f"--distractors takes how many words, 0 or more, or a list of them, got {asked}")
    if not asked.isdecimal():
        return distractor_words(known, [load_vocabulary(asked)], sys.maxsize)
    others = (load_vocabulary(f"{name}_clean") for name in BENCHMARKS if name != benchmark)
    return distractor_words(known, others, int(asked))
