"""The check of single files and of all label maps together, without a benchmark around them."""

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfclip.benchmarks.label_checks import Convention, Finding, Look, look_at, overall

TWO = Convention(("cat", "dog"), first=1, void=False, prepare="make them again")
VOC = Convention(("background", "cat", "dog"), first=0, void=True, prepare="take the originals")


def encoded(values: np.ndarray, form: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(values).save(stream, form)
    return stream.getvalue()


LABELS = encoded(np.array([[0, 1], [2, 2]] * 40, np.uint8), "PNG")
PHOTO = encoded(np.random.default_rng(0).integers(0, 255, (80, 2, 3), np.uint8), "JPEG")
HEADER = b"IHDR" + (10**5).to_bytes(4, "big") * 2 + LABELS[24:29]
HUGE = LABELS[:12] + HEADER + zlib.crc32(HEADER).to_bytes(4, "big") + LABELS[33:]


def found(tmp_path: Path, photo: bytes, labels: bytes) -> list[Finding]:
    (tmp_path / "a.jpg").write_bytes(photo)
    (tmp_path / "a.png").write_bytes(labels)
    return list(look_at(tmp_path / "a.jpg", tmp_path / "a.png", TWO, tmp_path).findings)


def test_sound_files(tmp_path: Path) -> None:
    assert found(tmp_path, PHOTO, LABELS) == []
    assert look_at(tmp_path / "a.jpg", tmp_path / "a.png", TWO, tmp_path).shares == {0: 0.25, 1: 0.25, 2: 0.5}


@pytest.mark.parametrize("labels", [LABELS[:-20], LABELS[:-12], LABELS[:33], LABELS[:33] + LABELS[-12:], b"", HUGE])
def test_damaged_label_maps(tmp_path: Path, labels: bytes) -> None:
    """Without the end, all pixels or the content, or with a header that would fill the memory."""
    (finding,) = found(tmp_path, PHOTO, labels)
    assert (finding.kind, finding.file) == ("unreadable", "a.png")
    assert " at 0x" not in finding.text


def test_a_flipped_byte_among_the_pixels(tmp_path: Path) -> None:
    at = LABELS.index(b"IDAT") + 8
    (finding,) = found(tmp_path, PHOTO, LABELS[:at] + bytes([LABELS[at] ^ 1]) + LABELS[at + 1 :])
    assert finding.kind == "unreadable"


def test_photos_without_their_end(tmp_path: Path) -> None:
    """A copy that was cut short, and one whose rest was never written; bytes after the end are harmless."""
    half = len(PHOTO) // 2
    for photo in (PHOTO[:-2], PHOTO[:half], PHOTO[:half] + bytes(len(PHOTO) - half), PHOTO[:-2] + bytes(512)):
        (finding,) = found(tmp_path, photo, LABELS)
        assert (finding.kind, finding.file) == ("unreadable", "a.jpg")
    assert found(tmp_path, PHOTO + bytes(5), LABELS) == []


def test_no_class_anywhere() -> None:
    looks = [Look("a.png", shares={0: 1.0}), Look("b.png", shares={0: 1.0})]
    (finding,) = overall(looks, TWO)
    assert str(finding).startswith("a.png: shows no class, nor does any other label map: the only values are [0]; make")
    assert overall([Look("a.png", shares={0: 0.5, 1: 0.5})], TWO) == []
    assert overall([Look("a.png")], TWO) == []


def test_outlines_are_narrower_than_the_background() -> None:
    """As in VOC's real label maps, one of which is nearly all 255."""
    normal = [Look(f"{number}.png", shares={0: 0.7, 1: 0.25, 255: 0.05}) for number in range(9)]
    unusual = [Look("x.png", shares={2: 0.08, 255: 0.92}), Look("y.png", shares={2: 0.98, 255: 0.02})]
    assert overall([*normal, *unusual], VOC) == []
    assert overall(unusual[1:], VOC) == []
    lower = [Look(f"{number}.png", shares={0: 0.2, 1: 0.05, 255: 0.75}) for number in range(9)]
    (finding,) = overall([*lower, *unusual], VOC)
    assert finding.file == "x.png"
    assert "92% of it are 255" in finding.text
