"""rfclip demo --model tiny: segment pictures with any words in the browser; needs the extra [demo]."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from rfclip.cli.arguments import share, share_clip


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser.description = "A page on this machine (127.0.0.1) that segments with any words."
    share_clip(parser, "ViT-B-16", "=openai")
    share(parser, "short_side", "device", short_side=336, device="=a GPU if there is one")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from rfclip.checks import UserError

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        from rfclip.demo.app import build, launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the demo needs gradio: pip install 'rfclip[demo]', in a checkout -e '.[demo]'") from error
    from rfclip.demo.studio import Studio

    studio = Studio(args.model, args.pretrained, args.device, args.short_side, args.quick_gelu, args.origin)
    if studio.note is not None:
        print(studio.note, flush=True)
    launch(build(studio), args.port)
    return 0
