"""The demo as a user starts it, for tests that ask it for pages."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools/demo.py"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the demo with the tiny CLIP; gives all that it printed up to its address, which is in the last line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"RFCLIP_CACHE": str(folder / "cache"), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    command = [sys.executable, str(TOOL), "--model=tiny", "--short-side=112", f"--port={port}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=folder)
    assert process.stdout is not None
    said = ""
    try:
        while "Open http" not in said:
            line = process.stdout.readline()
            assert line, said + (folder / "log").read_text()
            said += line
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def address_in(said: str) -> str:
    """http://127.0.0.1:PORT of what the demo printed."""
    found = re.search(r"http://127[.]0[.]0[.]1:\d+", said)
    assert found
    return found[0]
