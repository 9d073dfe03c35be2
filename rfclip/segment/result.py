"""What comes of segmenting a picture: labels, areas, an overlay, and files of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rfclip.io.atomic import write_whole
from rfclip.io.fonts import printable
from rfclip.io.images import sentence
from rfclip.segment.names import free_name, known_as
from rfclip.segment.overlay import OPACITY, legend_name, paint, with_legend
from rfclip.words.vocabulary import Colour


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The result for one picture.

    Attributes:
        labels: (H, W) int64, index into `names`.
        probs: (C, H, W) float32, probability of each class, that of its best name; None if they were not kept.
        names: C names, the first alias of each class.
        colours: C colours (r, g, b), 0..255.
        image: (H, W, 3) uint8 RGB, the picture itself.
        seen: (h, w) to which it was resized for the network; None: not known.
        source: The file it was read from; None: not known.
        notes: Clauses on what was guessed or cut, such as "has values up to 4000; white was taken to be 4095".
        about_model: A sentence that users of the model must know, or None.
    """

    labels: np.ndarray
    probs: np.ndarray | None
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    image: np.ndarray
    seen: tuple[int, int] | None = None
    source: Path | None = None
    notes: tuple[str, ...] = ()
    about_model: str | None = None

    def __repr__(self) -> str:
        height, width = self.labels.shape
        of = f"{self.source.name}, " if self.source is not None else ""
        return printable(f"<Segmentation of {of}{height} x {width} pixels: {self.summary()}>")

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay with its legend."""
        buffer = io.BytesIO()
        self.overlay(legend=True).save(buffer, "PNG")
        return buffer.getvalue()

    def summary(self, most: int = 5) -> str:
        """The classes with the largest areas, at most `most`, e.g. "sky 41.0 %, tree 30.2 %"."""
        ranked = sorted(self.shares().items(), key=lambda entry: -entry[1])
        return ", ".join(f"{' '.join(name.split())} {100 * share:.1f} %" for name, share in ranked[:most] if share > 0)

    def shares(self) -> dict[str, float]:
        """Share of the area (0..1) of each class, in the order of `names`; classes that show the same name add up."""
        shares = dict.fromkeys(self.names, 0.0)
        for name, share in zip(self.names, self._class_shares(), strict=True):
            shares[name] += share
        return shares

    def _class_shares(self) -> list[float]:
        """Share of the area (0..1) of each of the C classes."""
        return (np.bincount(self.labels.ravel(), minlength=len(self.names)) / self.labels.size).tolist()

    def overlay(self, opacity: float = OPACITY, legend: bool = False) -> Image.Image:
        """The picture with the labels painted over it, and a legend below it if asked for.

        Args:
            opacity: share of the labels' colours, 0..1.
            legend: name, colour and share of each class that occurs, largest first.
        """
        painted = Image.fromarray(paint(self.image, self.labels, self.colours, opacity))
        if not legend:
            return painted
        ranked = sorted(enumerate(self._class_shares()), key=lambda entry: -entry[1])
        entries = [
            (legend_name(index, self.names[index]), self.colours[index], share) for index, share in ranked if share > 0
        ]
        return with_legend(painted, entries)

    def label_image(self) -> Image.Image:
        """The labels as a palette image; as 16-bit grey if there are more than 256 classes."""
        if len(self.names) > 256:
            return Image.fromarray(self.labels.astype(np.uint16))
        image = Image.fromarray(self.labels.astype(np.uint8))
        image.putpalette([value for colour in self.colours for value in colour])
        return image

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        probs: bool = False,
        facts: Mapping[str, Any] | None = None,
        opacity: float = OPACITY,
    ) -> list[Path]:
        """Write STEM_labels.png, STEM_overlay.png and STEM.json (names, colours, area shares, ...) into a folder.

        Args:
            folder: Is made if it is not there.
            stem: How the files' names begin; files of such names are replaced. None: as the picture's file is called,
                or "image", with a number if results of another picture have that name.
            probs: Also write STEM_probs.npz, the array `probs` (C, H, W) as float16; otherwise one of that name,
                which would belong to an earlier result, is removed.
            facts: Further entries of the JSON.
            opacity: As :meth:`overlay` takes it.

        Returns:
            The paths that were written.

        Raises:
            ValueError: Probabilities are asked for that were not kept, or `stem` cannot begin a file's name.
        """
        if stem is not None and (not isinstance(stem, str) or not stem or Path(stem).name != stem or "\0" in stem):
            raise ValueError(f"stem is how the names of the files begin, such as 'image', and no path, got {stem!r}")
        if probs and self.probs is None:
            raise ValueError("the probabilities were not kept: build the OpenVocabSegmenter with keep_probs=True")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        source = known_as(self.source, self.image, folder)
        if stem is None:
            stem = free_name(folder, self.source, source)
        paths = [folder / f"{stem}_labels.png", folder / f"{stem}_overlay.png", folder / f"{stem}.json"]
        self.label_image().save(paths[0])
        self.overlay(opacity, legend=True).save(paths[1])
        kept = folder / f"{stem}_probs.npz"
        if probs:
            np.savez_compressed(kept, probs=np.asarray(self.probs, np.float16))
            paths.append(kept)
        else:
            kept.unlink(missing_ok=True)
        said = sentence("the picture" if self.source is None else str(self.source), self.notes)
        content = {
            "size": list(self.labels.shape),
            "names": self.names,
            "colours": self.colours,
            "shares": self.shares(),
            "seen": None if self.seen is None else list(self.seen),
            "source": source,
            "note": " ".join(filter(None, [said, self.about_model])) or None,
            **(facts or {}),
        }
        write_whole(paths[2], json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return paths
