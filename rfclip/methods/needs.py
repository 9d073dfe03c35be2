"""What a method may need beside the tower and the pieces of an image, and how it is handed over.

need       what comes of it
text       `given.text` holds the queries
windows    in place of the loop over the windows of an image, `method.joined(vit, windows, record, given)` is called
           once with all of them, (n, 3, h, w); `given.corners` says where they lie. A call of the method itself takes a
           batch of images, each a window of its own
picture    `given.picture` holds the image, and `method.merged(maps, given)` is called once with the image's maps
           (Q, H, W), the windows merged, and returns what stands in their place

A method declares its words in `needs`, a frozenset, and is then called with `given`; one that declares none is not. One
whose outputs have `scores` says `gives_scores = True`, so that a prior beside it is refused when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TEXT, WINDOWS, PICTURE = "text", "windows", "picture"
NEEDS = (TEXT, WINDOWS, PICTURE)


@dataclass(frozen=True, eq=False)
class Given:
    """What the engine hands to a method that declares `needs`.

    Attributes:
        text: (Q, E) normalised embeddings of the queries, before any prior; without rows where they are not declared.
        logit_scale: factor of the cosines before the softmax.
        window_batch: windows that a tower is to be given at once; bounds the memory.
        corners: (y, x) of each window's upper left corner, padding included, in pixels of the image, whose own is
            (0, 0).
        picture: (3, H, W) RGB in 0..1, or None where it is not declared.
    """

    text: Tensor
    logit_scale: float
    window_batch: int = 8
    corners: tuple[tuple[int, int], ...] = ((0, 0),)
    picture: Tensor | None = None


def needs_of(method: object) -> frozenset[str]:
    """What a method declares that it needs beside the tower.

    Raises:
        ValueError: a word is none of NEEDS, or the method lacks what is called for it.
    """
    needs = frozenset(getattr(method, "needs", ()))
    if needs - set(NEEDS):
        raise ValueError(
            f"{type(method).__name__}.needs must hold none but {', '.join(map(repr, NEEDS))}, got {sorted(needs)}"
        )
    for need, name in ((WINDOWS, "joined"), (PICTURE, "merged")):
        if need in needs and not hasattr(method, name):
            raise ValueError(f"{type(method).__name__} needs {need!r} and has no {name}(...) that is called for it")
    return needs


def gives_scores(method: object) -> bool:
    """Whether a method declares that its outputs have scores in place of cosines."""
    return bool(getattr(method, "gives_scores", False))
