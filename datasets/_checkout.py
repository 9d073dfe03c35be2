"""What the scripts of this folder share: the command of this very checkout, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rfclip.cli import main


def prepare(what: str) -> None:
    """Run `rfclip prepare` with the options of the script, and end with its exit status."""
    sys.exit(main(["prepare", what, *sys.argv[1:]]))
