"""Segment pictures with any words in the browser: python tools/demo.py --model tiny; needs pip install -e '.[demo]'."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import _checkout  # noqa: F401  (finds this checkout, before mmseg)

from rfclip.benchmarks.options import add_clip_options


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A page on this machine (127.0.0.1) that segments with any words.")
    parser.add_argument("--model", default="ViT-B-16", help="open_clip name, model-config JSON, 'auto' or 'tiny'")
    parser.add_argument("--pretrained", help="open_clip tag or weights file (default: openai)")
    add_clip_options(parser)
    parser.add_argument("--short-side", type=int, default=336, help="pixels that the network sees of the short side")
    parser.add_argument("--device", help="e.g. cpu, cuda:1; default: a GPU if there is one")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; exit status 1 with one sentence if that cannot be."""
    args = parse(arguments)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        from rfclip.demo.app import build, launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        print("error: the demo needs gradio: pip install -e '.[demo]'", file=sys.stderr)
        return 1
    from rfclip.demo.studio import Studio

    try:
        studio = Studio(args.model, args.pretrained, args.device, args.short_side, args.quick_gelu, args.origin)
        if studio.note is not None:
            print(studio.note, flush=True)
        launch(build(studio), args.port)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
