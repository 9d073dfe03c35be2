"""Reading pictures of any kind."""

from pathlib import Path

import numpy as np
import pytest
from mmcv import imrescale
from PIL import Image

from rfclip.images import DAMAGE, frame_count, read_image, read_with_notes, resize_short_side


def gradient(height: int = 6, width: int = 9) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_array_and_pil_and_path_give_the_same(tmp_path: Path) -> None:
    array = gradient()
    Image.fromarray(array).save(tmp_path / "a.png")
    for source in (array, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(read_image(source), array)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(gradient(6, 9))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(gradient(6, 9), -1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = read_image(Image.fromarray(gradient()).convert("L").convert("RGB").convert(mode))
    assert image.shape == (6, 9, 3)
    assert image.dtype == np.uint8


def test_sixteen_bits_become_eight() -> None:
    values = np.array([[0, 65535, 32768]], np.uint16)
    np.testing.assert_array_equal(read_image(Image.fromarray(values))[..., 0], [[0, 255, 128]])


def of(*values: float, kind: type = np.uint16) -> Image.Image:
    return Image.fromarray(np.array([values], kind))


@pytest.mark.parametrize(
    ("image", "expected", "note"),
    [
        (of(0, 65535), [0, 255], None),
        (of(0, 4096), [0, 16], None),
        (of(0, 4095), [0, 255], "white was taken to be 4095"),
        (of(0, 200), [0, 200], "white was taken to be 255"),
        (of(0, 0), [0, 0], None),
        (of(0, 0.5, kind=np.float32), [0, 128], "white was taken to be 1"),
        (of(0, 200, kind=np.float32), [0, 200], "white was taken to be 255"),
        (of(0, 70000, kind=np.int32), [0, 255], "outside 0..65535"),
        (of(-9, 65535, kind=np.int32), [0, 255], "outside 0..65535"),
        (of(0, np.nan, np.inf, -np.inf, 1, kind=np.float32), [0, 0, 0, 0, 255], "no finite numbers"),
    ],
)
def test_deep_grey_is_scaled_and_a_guess_is_said(image: Image.Image, expected: list[int], note: str | None) -> None:
    pixels, notes = read_with_notes(image)
    assert pixels[0, :, 0].tolist() == expected
    assert (note or "") in "; ".join(notes)
    assert bool(notes) == bool(note)


@pytest.mark.parametrize("kind", DAMAGE)
def test_whatever_a_decoder_raises_becomes_a_sentence(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise kind("broken")

    Image.fromarray(gradient()).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decode)
    with pytest.raises(ValueError, match=r"a\.png' cannot be read as an image: broken"):
        read_image(tmp_path / "a.png")


def test_damage_behind_the_first_frame(tmp_path: Path) -> None:
    """Its pixels are there; counting the frames meets the damage."""
    frames = [Image.fromarray(gradient() + number).convert("P") for number in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    second = content.index(b"\x21\xf9", content.index(b"\x21\xf9") + 1)  # its graphic control extension
    (tmp_path / "a.gif").write_bytes(content[: second + 2] + b"\x04")
    assert read_image(tmp_path / "a.gif").shape == (6, 9, 3)
    with pytest.raises(ValueError, match=r"a\.gif' cannot be read as an image"):
        frame_count(tmp_path / "a.gif")


def test_transparent_becomes_white() -> None:
    image = read_image(Image.new("RGBA", (3, 2), (10, 20, 30, 0)))
    np.testing.assert_array_equal(image, np.full((2, 3, 3), 255))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert frame_count(tmp_path / "a.gif") == 2
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_errors_name_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_image(tmp_path / "nowhere.png")
    for name in ("text.jpg", "half.png"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        read_image(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="float"):
        read_image(np.zeros((4, 5, 3)))
    with pytest.raises(TypeError, match="int"):
        read_image(3)


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (40, 60), (336, 336), (100, 3000)])
def test_resize_is_the_rule_of_the_configs(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = imrescale(image, (2048, 336))
    np.testing.assert_array_equal(resize_short_side(image, 336), expected)


def test_a_line_of_pixels_survives_the_resize() -> None:
    assert resize_short_side(np.zeros((1, 5000, 3), np.uint8), 336).shape == (1, 2048, 3)
