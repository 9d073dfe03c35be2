"""A process that runs the cells of a table one after the other: libraries are imported once for all of them.

`python -m rfclip.cli.worker [MODULE...]` imports the modules, then reads a cell per line of its standard input and
answers each with a line, both JSON. What the runs say goes to standard error. It ends at once when its input ends, so
that it does not outlive whoever started it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rfclip.benchmarks.options import Options
    from rfclip.runs.compare.rows import Row


def packed(row: Row, base: Options) -> str:
    """A cell as a line."""
    return json.dumps({"row": asdict(row), "base": asdict(base)}, default=str)


def unpacked(line: str) -> tuple[Row, Options]:
    """What :func:`packed` packed."""
    from rfclip.benchmarks.options import Options
    from rfclip.runs.compare.rows import Row

    cell = json.loads(line)
    base = {**cell["base"], "config": Path(cell["base"]["config"]), "work_dir": Path(cell["base"]["work_dir"])}
    return Row(**cell["row"]), Options(**base)


def run_cell(row: Row, base: Options) -> dict[str, Any]:
    """Run a cell, or find it finished if the options have `resume`.

    Returns:
        Its `seconds`, and whether it was `kept`.

    Raises:
        UserError: It cannot be run.
    """
    from rfclip.runs.compare.rows import row_options
    from rfclip.runs.run import run, setting_up

    started = time.time()
    with setting_up():
        options = row_options(row, base)
    results: Mapping[str, Any] = run(options)
    ran = datetime.fromisoformat(results["manifest"]["time"]["started"]).timestamp() if results else started
    return {"seconds": round(time.time() - started, 2), "kept": ran < int(started)}


def answer(line: str, imports: Sequence[str]) -> dict[str, Any]:
    """Run the cell of a line; `error` is the sentence of what went wrong, which concerns this cell alone."""
    from rfclip.cli.errors import blame, users_error

    try:
        return run_cell(*unpacked(line))
    except Exception as error:  # where all errors of a cell arrive: what is not the user's is shown whole
        sentence = users_error(error)
        if sentence is None:
            traceback.print_exception(error)
            sentence = blame(error, imports)
        return {"error": sentence}


def _lines(source: TextIO) -> Iterator[str]:
    """Its lines; at its end the process ends, whatever it is doing."""
    queue: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in source:
            queue.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield queue.get()


def main(imports: Sequence[str]) -> None:
    """Answer until there is no more to do."""
    import rfclip
    from rfclip.cli.errors import import_users

    source, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)  # loader processes close standard input, and would wait for whoever reads it
    os.dup2(2, 1)
    rfclip.register()
    for module in imports:
        import_users(module)
    gc.freeze()  # mmengine's data sets collect garbage; the libraries are none
    for line in _lines(source):
        print(json.dumps(answer(line, imports)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
