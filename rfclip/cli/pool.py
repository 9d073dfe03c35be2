"""Cells of a table in processes of their own, several at a time; and how far the table is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

LOG = "workers.log"
PATIENCE = 10  # seconds, for the end of a thread whose process was killed
# Memory that torch frees is kept for its next tensors: by default the C library gives large pieces back, and the system
# fills each new one with zeros, which takes as long as the arithmetic of the tiny CLIP
_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**33)}
Answer = Mapping[str, Any]  # `seconds` and `kept`, or `error`: see rfclip.cli.worker


@dataclass(eq=False)
class Worker:
    """A process that answers one line after the other; one that has died is started anew for the next.

    Attributes:
        imports: Modules of the user's.
        environment: Of the process.
        log: File that takes what it says.
    """

    imports: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def ask(self, line: str) -> Answer:
        """The answer to a line; an `error` if the process died over it."""
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a worker was started without pipes")
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            said = process.stdout.readline()
        except BrokenPipeError:
            said = ""
        if said:
            found: Answer = json.loads(said)
            return found
        status = process.wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        return {"error": f"its process {how}: {_last_line(self.log)}see {self.log}"}

    def kill(self) -> None:
        """End the process, whatever it is doing; any thread may."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the process and close its pipes."""
        self.kill()
        pipes = (self._process.stdin, self._process.stdout) if self._process is not None else ()
        for pipe in pipes:
            with suppress(BrokenPipeError):  # what was written to a process that has died
                pipe.close()  # type: ignore[union-attr]  # both are pipes, see _running
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            line = [sys.executable, "-m", "rfclip.cli.worker", *self.imports]
            with self.log.open("a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.environment, text=True
                )
        return self._process


def ask_all(lines: Sequence[str], workers: Sequence[Worker]) -> Iterator[tuple[int, Answer]]:
    """Have lines answered by as many workers at once as there are; yields a line's number and its answer when it comes.

    The workers are ended with the iteration, however that ends.
    """
    todo = deque(enumerate(lines))
    done: SimpleQueue[tuple[int, Answer]] = SimpleQueue()

    def serve(worker: Worker) -> None:
        while todo:
            try:
                number, line = todo.popleft()
            except IndexError:  # another took the last
                break
            try:
                done.put((number, worker.ask(line)))
            except OSError as error:
                done.put((number, {"error": f"its process could not be started: {error}"}))
        worker.close()

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers[: len(lines)]]
    try:
        for thread in threads:
            thread.start()
        for _ in lines:
            yield done.get()
    finally:
        todo.clear()
        for worker in workers:
            worker.kill()
        for thread in threads:
            thread.join(PATIENCE)


def environments(count: int, gpus: bool, base: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each of several workers: a share of the cores, and a GPU each if that is asked for.

    Args:
        count: Number of workers.
        gpus: Whether each has a GPU of its own.
        base: Of this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = base.get("OMP_NUM_THREADS", "")
    threads = max(1, (int(given) if given.isdecimal() else cores) // count)
    visible = [name for name in base.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = visible or [str(number) for number in range(count)]
    shared = {**_MEMORY, **base, **({"OMP_NUM_THREADS": str(threads)} if count > 1 else {})}
    return [{**shared, **({"CUDA_VISIBLE_DEVICES": names[i % len(names)]} if gpus else {})} for i in range(count)]


@dataclass(eq=False)
class Progress:
    """How much of a table is left, and about how long it takes.

    Attributes:
        left: Of each row the benchmarks that are left.
        workers: How many cells are run at once.
    """

    left: dict[Any, list[str]]
    workers: int = 1
    _seconds: dict[str, list[float]] = field(default_factory=dict, init=False)

    def done(self, row: Any, benchmark: str, answer: Answer) -> None:
        """Take note of a finished cell."""
        self.left[row].remove(benchmark)
        if "seconds" in answer and not answer["kept"]:
            self._seconds.setdefault(benchmark, []).append(answer["seconds"])

    def text(self) -> str:
        """'3 rows, 17 cells left, about 4 min'."""
        cells = [benchmark for benchmarks in self.left.values() for benchmark in benchmarks]
        counts = {"row": sum(map(bool, self.left.values())), "cell": len(cells)}
        left = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()) + " left"
        every = [one for seconds in self._seconds.values() for one in seconds]
        if not cells or not every:
            return left
        seconds = sum(_mean(self._seconds.get(benchmark, every)) for benchmark in cells) / self.workers
        return f"{left}, about {duration(seconds)}"


def duration(seconds: float) -> str:
    """A time to wait for, rounded.

    Example:
        >>> duration(42), duration(400), duration(9000)
        ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _last_line(log: Path) -> str:
    """The last line of a log with a colon behind it, for a sentence; '' if there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"{lines[-1][:200]}; " if lines else ""
