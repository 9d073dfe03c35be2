"""The rows of the fair table: a method, and the prior, refiner and names that it gets; and how each is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from mmengine.config import Config

from rfclip.benchmarks.configs import BENCHMARKS, find_profile, profiles, refiner_block
from rfclip.benchmarks.options import Options, benchmark_name, build_config
from rfclip.words.lists import plain_vocabulary
from rfclip.words.vocabulary import load_vocabulary, shipped_vocabularies

ALL = "all"
PUBLISHED, NONE = "published", "none"
CLEAN, PLAIN = "clean", "plain"
PRIORS = (PUBLISHED, NONE)
NAMES = (PUBLISHED, CLEAN, PLAIN)
REFERENCE = "paper"  # of all methods


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        method: Name of a profile, or of a registered method.
        prior: 'published': as config and protocol have it; 'none'.
        refiner: 'none'; 'published': as config and protocol have it; or what
            :func:`rfclip.benchmarks.configs.refiner_block` takes.
        names: 'published': as config and protocol have them; 'clean': the benchmark's shipped list of that name;
            'plain': the data set's own class names without aliases.
    """

    method: str
    prior: str = PUBLISHED
    refiner: str = NONE
    names: str = PUBLISHED

    @property
    def setting(self) -> tuple[str, str, str]:
        """Prior, refiner, names: what rows must share to be ranked together."""
        return self.prior, self.refiner, self.names

    @property
    def name(self) -> str:
        """The method and what of its setting is not the usual; also the row's folder."""
        parts = [
            "" if self.prior == PUBLISHED else f"prior-{self.prior}",
            "" if self.refiner == NONE else f"refiner-{self.refiner}",
            "" if self.names == PUBLISHED else f"names-{self.names}",
        ]
        return "+".join(filter(None, [self.method, *parts]))


def chosen_methods(asked: list[str]) -> list[str]:
    """The names of profiles that are asked for, all that can be run for ['all'].

    Raises:
        ValueError: One is unknown, or stands twice.
    """
    if not all(asked):
        raise ValueError(f"--methods names none between its commas: {','.join(asked)!r}")
    methods = list(profiles()) if asked == [ALL] else [find_profile(name)[0] for name in asked]
    _check_once("--methods", methods)
    return methods


def chosen_reference(asked: str | None, methods: list[str], every: bool) -> str:
    """The method with which the others of a setting are compared.

    Args:
        asked: What the user named; None: `paper` among all methods, else the first.
        methods: Those of the table.
        every: Whether all methods were asked for.

    Raises:
        ValueError: It is none of the table's.
    """
    if asked is None:
        return REFERENCE if every and REFERENCE in methods else methods[0]
    reference = find_profile(asked)[0]
    if reference not in methods:
        raise ValueError(f"the reference {asked} is none of --methods {','.join(methods)}")
    return reference


def make_rows(methods: list[str], priors: list[str], refiner: list[str], names: list[str]) -> list[Row]:
    """All combinations, setting by setting, each with all methods.

    Raises:
        ValueError: A word is unknown, or stands twice.
    """
    for option, given, known in (("--prior", priors, PRIORS), ("--names", names, NAMES)):
        unknown = next((word for word in given if word not in known), None)
        if unknown is not None:
            raise ValueError(f"{option} takes {', '.join(known)}, by commas; got {unknown!r}")
        _check_once(option, given)
    for word in refiner:
        if word != PUBLISHED:
            refiner_block(word)  # says what there is
    _check_once("--refiner", refiner)
    settings = product(priors, refiner, names)
    return [Row(method, *setting) for setting in settings for method in methods]


def row_options(row: Row, base: Options) -> Options:
    """What the run of a row is told.

    Nothing is set that the config has already, so that the run is the very one that `rfclip test` does.

    Args:
        row: The row.
        base: Config, CLIP, data root, protocol and so on of all rows; `work_dir` is the table's.

    Raises:
        ValueError: There are no such names for the benchmark.
    """
    options = replace(base, profile=row.method, work_dir=base.work_dir / row.name)
    cfg = build_config(options)
    changes: dict[str, Any] = {}
    if row.prior == NONE and cfg.model.get("prior") is not None:
        changes["model.prior"] = None
    if row.names != PUBLISHED:
        changes["model.vocabulary"] = _vocabulary(row.names, cfg)
    as_it_is = row.refiner == PUBLISHED or (row.refiner == NONE and cfg.model.get("refiner") is None)
    refiner = None if as_it_is else row.refiner
    return replace(options, refiner=refiner, cfg_options={**base.cfg_options, **changes})


def _vocabulary(names: str, cfg: Config) -> str | list[list[str]]:
    """The names of a row: of a shipped list by its name, of plain ones the list itself."""
    benchmark = benchmark_name(cfg)
    own = benchmark if benchmark in BENCHMARKS else cfg.model.vocabulary
    if names == PLAIN:
        return [list(row) for row in plain_vocabulary(load_vocabulary(own)).names]
    clean = f"{own}_{names}"
    if not isinstance(own, str) or clean not in shipped_vocabularies():
        raise ValueError(f"no {names} names ship for {benchmark}: take others of --names {','.join(NAMES)}")
    return clean


def _check_once(option: str, given: list[str]) -> None:
    twice = next((word for word in given if given.count(word) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} stands twice in {option} {','.join(given)}: take it once")
