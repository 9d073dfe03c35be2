"""Reading pictures of any kind."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv import imrescale
from PIL import Image

from rfclip.io import tiff
from rfclip.io.formats import read_head
from rfclip.io.images import (
    DAMAGE,
    check_bands,
    cut_clause,
    decode,
    frame_count,
    image_size,
    read_image,
    read_with_notes,
    resize_short_side,
)
from tests.support.tiff_files import ASCII, LONG, SHORT, tiff_bytes


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
        (of(0, 32768), [0, 128], None),
        (of(0, 32767), [0, 255], "white was taken to be 32767"),
        (of(0, 4096), [0, 128], "white was taken to be 8191"),
        (of(0, 4095), [0, 255], "white was taken to be 4095"),
        (of(0, 600), [0, 150], "white was taken to be 1023"),
        (of(0, 200), [0, 200], "white was taken to be 255"),
        (of(0, 0), [0, 0], None),
        (of(0, 0.5, kind=np.float32), [0, 128], "white was taken to be 1"),
        (of(0, 200, kind=np.float32), [0, 200], "white was taken to be 255"),
        (of(0, 1000, kind=np.float32), [0, 249], "white was taken to be 1023"),
        (of(0, 1.02, kind=np.float32), [0, 255], "outside 0..1"),
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
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    content = (tmp_path / "a.gif").read_bytes()
    second = content.index(b"\x21\xf9", content.index(b"\x21\xf9") + 1)  # its graphic control extension
    (tmp_path / "a.gif").write_bytes(content[: second + 2] + b"\x04")
    assert read_image(tmp_path / "a.gif").shape == (6, 9, 3)
    with pytest.raises(ValueError, match=r"a\.gif' cannot be read as an image"):
        frame_count(tmp_path / "a.gif")


def test_transparent_becomes_white_and_is_said() -> None:
    image, notes = read_with_notes(Image.new("RGBA", (3, 2), (10, 20, 30, 0)))
    np.testing.assert_array_equal(image, np.full((2, 3, 3), 255))
    assert notes == ["has transparency: 100 % of the pixels are partly transparent; laid on white"]
    assert read_with_notes(Image.new("RGBA", (3, 2), (10, 20, 30, 255)))[1] == []
    half = Image.new("LA", (2, 1), (0, 255))
    half.putpixel((0, 0), (0, 128))
    pixels, notes = read_with_notes(half)
    assert pixels[0].tolist() == [[127] * 3, [0] * 3]
    assert "50 % of the pixels" in notes[0]


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


DEEP = np.array([[[0, 2000, 4095], [4095, 0, 1000]]], np.uint16)  # 12 of 16 bits
EIGHT = [[[0, 125, 255], [255, 0, 62]]]


def png(values: np.ndarray) -> bytes:
    """RGB or RGBA as a PNG of 16 bits."""
    order = [2, 1, 0, 3][: values.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(values[..., order]))[1].tobytes()


@pytest.mark.parametrize("write", [png, tiff_bytes], ids=["png", "tiff"])
def test_deep_colours_follow_the_rule_of_deep_grey(write: Callable[[np.ndarray], bytes]) -> None:
    pixels, notes = decode(write(DEEP), "x")
    assert pixels.tolist() == EIGHT
    assert notes == ["has values up to 4095; white was taken to be 4095"]
    full = DEEP.copy()
    full[0, 0, 0] = 65535
    assert decode(write(full), "x")[0][0, 0].tolist() == [255, 8, 16]
    assert decode(write(full), "x")[1] == []


def test_deep_transparency() -> None:
    clear = np.dstack([DEEP, np.array([[0, 4095]], np.uint16)])
    for content in (png(clear), tiff_bytes(clear, extra=[2])):
        pixels, notes = decode(content, "x")
        assert pixels.tolist() == [[[255] * 3, EIGHT[0][1]]]
        assert "50 % of the pixels are partly transparent" in notes[-1]
    multiplied = np.array([[[0, 100, 127, 128]]], np.uint8).astype(np.uint16) * 257
    assert decode(tiff_bytes(multiplied, extra=[1]), "x")[0].tolist() == [[[127, 227, 254]]]


@pytest.mark.parametrize("colours", [4000, 65535])
def test_half_of_sixteen_bits_is_half_transparent(colours: int) -> None:
    """Alpha has the bits that the colours use, or all of them; never fewer because none of its values is high."""
    pixels, notes = decode(png(np.array([[[colours, 0, 0, 32767]]], np.uint16)), "x")
    assert pixels[0, 0, 1] in (127, 128)
    assert "100 % of the pixels are partly transparent" in notes[-1]


def test_deep_jpeg_2000() -> None:
    values = np.tile(DEEP[:, :1], (64, 64, 1))
    ok, content = cv2.imencode(
        ".jp2", np.ascontiguousarray(values[..., ::-1]), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    )
    assert ok
    pixels, notes = decode(content.tobytes(), "x.jp2")
    assert np.abs(pixels.astype(int) - EIGHT[0][0]).max() <= 2
    assert "white was taken to be" in notes[0]


KINDS = ["u1", "u2", "i2", "u4", "f2", "f4", "f8"]
PACKINGS = [(kind, *how) for kind in KINDS for how in ((1, 1), (5, 2), (8, 1), (8, 2))]
PACKINGS += [(kind, 8, 3) for kind in KINDS if kind[0] == "f"]


@pytest.mark.parametrize(("kind", "compression", "predictor"), PACKINGS)
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_samples_of_a_tiff(kind: str, compression: int, predictor: int, tile: tuple[int, int] | None) -> None:
    for bands, separate, order in itertools.product((1, 3, 5), (False, True), "<>"):
        values = (np.random.default_rng(0).random((37, 45, bands)) * 200).astype(kind)
        content = tiff_bytes(
            values, separate=separate, tile=tile, rows=10, compression=compression, predictor=predictor, order=order
        )
        file = io.BytesIO(content)
        layout = tiff.read_layout(file, read_head(file))
        if layout is None:  # Pillow reads it without a loss
            assert kind == "u1" and bands < 5
            with Image.open(file) as image:
                np.testing.assert_array_equal(np.asarray(image).reshape(values.shape), values)
        else:
            np.testing.assert_array_equal(tiff.read_bands(file, layout, range(bands)), values)


def test_a_fourth_band_that_is_no_transparency(tmp_path: Path) -> None:
    scene = np.full((4, 4, 4), (40, 90, 30, 25), np.uint8)
    for extra in ([0], None):
        (tmp_path / "a.tif").write_bytes(tiff_bytes(scene, extra=extra))
        pixels, notes = read_with_notes(tmp_path / "a.tif")
        assert pixels[0, 0].tolist() == [40, 90, 30]
        assert "has 4 bands; the first three were taken for red, green and blue" in notes[0]
    Image.fromarray(scene).save(tmp_path / "a.tif")  # the file calls it transparency
    pixels, notes = read_with_notes(tmp_path / "a.tif")
    assert pixels[0, 0].tolist() == [234, 239, 233]
    assert notes == ["has transparency: 100 % of the pixels are partly transparent; laid on white"]
    assert read_with_notes(tmp_path / "a.tif", (1, 2, 3))[0][0, 0].tolist() == [40, 90, 30]
    assert read_with_notes(tmp_path / "a.tif", (4, 1, 2))[0][0, 0].tolist() == [25, 40, 90]
    assert read_with_notes(tmp_path / "a.tif", (4,))[0][0, 0].tolist() == [25, 25, 25]


@pytest.mark.parametrize("photometric", [1, 2])
@pytest.mark.parametrize("bands", [5, 8])
def test_more_bands(photometric: int, bands: int, tmp_path: Path) -> None:
    values = np.tile(np.arange(10, 10 * bands + 1, 10, dtype=np.uint8), (3, 2, 1))
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(values, photometric, [0] * (bands - (3 if photometric == 2 else 1))))
    pixels, notes = read_with_notes(path)
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert f"has {bands} bands; the first three" in notes[0]
    assert read_with_notes(path, (5, 3, 2))[0][0, 0].tolist() == [50, 30, 20]
    assert image_size(path) == (3, 2) and frame_count(path) == 1
    with pytest.raises(ValueError, match=rf"it has {bands} bands, and asked for were 3, 2, 9"):
        read_image(path, (3, 2, 9))


def test_bands_and_transparency_of_grey() -> None:
    pair = np.array([[[50, 0], [70, 255]]], np.uint8)
    assert decode(tiff_bytes(pair, extra=[2]), "x")[0][0, :, 0].tolist() == [255, 70]
    pixels, notes = decode(tiff_bytes(pair, extra=[0]), "x")
    assert pixels[0, :, 0].tolist() == [50, 70]
    assert "has 2 bands; the first was taken" in notes[0]
    light = np.array([[[0], [4095]]], np.uint16)
    assert decode(tiff_bytes(light, photometric=0), "x")[0][0, :, 0].tolist() == [255, 0]  # 0 is white
    transparent = np.array([[[50, 1, 0], [70, 2, 255]]], np.uint8)
    assert decode(tiff_bytes(transparent, 1, [0, 2]), "x")[0][0, :, 0].tolist() == [255, 70]


def test_pixels_without_data_do_not_decide_what_is_white() -> None:
    values = DEEP.copy()
    values[0, 1] = 65535
    content = tiff_bytes(values, more={42113: (ASCII, list(b"65535\0"))})
    pixels, notes = decode(content, "x")
    assert pixels.tolist() == [[EIGHT[0][0], [0, 0, 0]]]
    assert notes == [
        "has pixels without data (of the value 65535); they were taken for black",
        "has values up to 4095; white was taken to be 4095",
    ]


def test_bands_of_arrays() -> None:
    array = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)
    assert read_image(array, (3, 2, 1))[0, 0].tolist() == [2, 1, 0]
    assert read_image(array, (5,))[0, 0].tolist() == [4, 4, 4]
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8 RGB and not empty, got \(2, 3\)"):
        read_image(array[..., 0], (1,))


@pytest.mark.parametrize("bands", [(1, 2), (), (0, 1, 2), (True, 1, 2), (1.0, 2, 3), (1, 2, 3, 4)])
def test_what_are_no_bands(bands: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="bands are three whole numbers from 1 on"):
        check_bands(bands)


def test_orientation_of_deep_pictures() -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 4, 3) * 2700
    turned = decode(tiff_bytes(values, more={274: (SHORT, [6])}), "x")[0]
    np.testing.assert_array_equal(turned, np.rot90(decode(tiff_bytes(values), "x")[0], -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff_bytes(DEEP)[:30], "its list of tags is damaged"),
        (tiff_bytes(DEEP, more={258: (SHORT, [10, 10, 10])}), r"samples of \[10\] bits"),
        (tiff_bytes(DEEP, more={279: (LONG, [4])}), "it ends too early"),
        (tiff_bytes(DEEP, more={257: (LONG, [9]), 278: (LONG, [1])}), "where 1 of 9 parts lie"),
        (tiff_bytes(DEEP, more={256: (LONG, [10**6]), 257: (LONG, [10**6])}), "million pixels"),
        (tiff_bytes(DEEP, more={266: (SHORT, [2])}), "FillOrder"),
    ],
)
def test_tiffs_that_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(content, "x.tif")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("x.png", EPS, "EPS"),
        ("x.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("x.HEIC", b"nothing", "HEIC"),
        ("x.png", b"%PDF-1.7", "PDF"),
        ("x.svg", b'<?xml version="1.0"?><svg/>', "SVG"),
        ("x.jpg", b"<!DOCTYPE html><html>", "a web page"),
        ("x.nef", tiff_bytes(np.zeros((2, 2, 3), np.uint8)), "a camera's raw file"),
        ("x.tif", tiff_bytes(DEEP, more={50706: (LONG, [1])}), "a camera's raw file"),
        ("x.psd", b"8BPS\0\1", "Photoshop's PSD"),
    ],
)
def test_kinds_that_are_not_read_are_named_with_the_cure(
    name: str, content: bytes, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("another program would be started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", start)
    (tmp_path / name).write_bytes(content)
    for read in (read_image, image_size, frame_count):
        if name == "x.nef" and read is not read_image:
            continue  # by its name alone
        with pytest.raises(ValueError, match=rf"{name}' is {kind}, which is not read: save it as JPEG or PNG"):
            read(tmp_path / name)


def test_a_jpeg_under_another_name_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "x.heic", "JPEG")
    assert read_image(tmp_path / "x.heic").shape == (2, 3, 3)


@pytest.mark.parametrize("mode", ["PA", "RGBX", "RGBa", "La", "I;16B", "I;16L"])
def test_rare_modes_are_read(mode: str) -> None:
    pixels, notes = read_with_notes(Image.new(mode, (3, 2)))
    clear = mode in ("PA", "RGBa", "La")
    assert pixels.tolist() == [[[255 if clear else 0] * 3] * 3] * 2
    assert bool(notes) == clear


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "I;16"])
def test_what_is_read_can_be_written_to(mode: str) -> None:
    """torch warns of arrays that cannot."""
    assert read_image(Image.new(mode, (4, 3))).flags.writeable


def test_empty_pil_images() -> None:
    with pytest.raises(ValueError, match="the image is empty: it has 0 x 3 pixels"):
        read_image(Image.new("RGB", (0, 3)))


def test_a_wish_that_the_long_side_cuts() -> None:
    assert cut_clause((336, 2048), 336) is None
    assert cut_clause((205, 2048), 336) == (
        "was seen with a short side of 205 pixels instead of 336: no side becomes longer than 2048"
    )
