"""Properties that must hold for any input: vocabularies, windows, image shapes, number types, damaged files."""

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rfclip.clip.loader import load_clip
from rfclip.clip.text import load_templates
from rfclip.clip.weights import WeightsError, read_weights
from rfclip.io.images import frame_count, read_image, resize_short_side
from rfclip.methods.base import DenseOutput
from rfclip.pipeline import steps as pipeline
from rfclip.pipeline import windows
from rfclip.pipeline.labels import label
from rfclip.pipeline.queries import Queries
from rfclip.pipeline.settings import Settings
from rfclip.pipeline.windows import Windows
from rfclip.runs.areas import ImageAreas
from rfclip.words.vocabulary import distinct_colours, load_vocabulary, trimmed

few = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
many = settings(few, max_examples=60)
TEXT = st.text(max_size=12)
ROWS = st.lists(st.one_of(TEXT, st.lists(TEXT, max_size=3)), max_size=6)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


# Vocabularies: unicode, duplicates, empty names, one class, a thousand classes, braces and commas in names


@many
@given(ROWS)
@example([["{}", "{0}", "a, b"], "été", "犬🐕", "same", "same"])
@example([f"class {number}" for number in range(1000)])
@example(["one"])
def test_a_vocabulary_keeps_every_name_or_says_what_is_wrong(rows: list[Any]) -> None:
    try:
        vocabulary = load_vocabulary(rows)
    except ValueError as error:
        assert "vocabulary" in str(error)
        return
    given_names = [[trimmed(name) for name in ([row] if isinstance(row, str) else row)] for row in rows]
    assert [list(row) for row in vocabulary.names] == given_names
    assert len(vocabulary.queries) == len(vocabulary.query_class)
    assert [vocabulary.names[c][0] for c in range(len(rows))] == list(vocabulary.classes)
    assert sorted(set(vocabulary.query_class)) == list(range(len(rows)))
    assert len(set(vocabulary.colours)) == len(rows)


@many
@given(JSON)
def test_any_json_is_a_vocabulary_or_a_sentence(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(content))
    try:
        vocabulary = load_vocabulary(path)
    except ValueError as error:
        assert "words.json" in str(error)
    else:
        assert vocabulary.names


@many
@given(st.binary(max_size=60), st.sampled_from([".json", ".txt"]))
@example(b"\xff\xfe", ".txt")
@example(b"[" * 100000, ".json")
def test_any_bytes_are_a_vocabulary_or_a_sentence(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"words{ending}"
    path.write_bytes(content)
    try:
        vocabulary = load_vocabulary(path)
    except ValueError as error:
        assert f"words{ending}" in str(error)
    else:
        assert all(name.strip() for name in vocabulary.queries)


@many
@given(st.lists(TEXT, max_size=4))
def test_templates_are_filled_or_refused(templates: list[str]) -> None:
    fine = bool(templates) and all("{}" in template for template in templates)
    if fine:
        assert load_templates(templates) == tuple(templates)
    else:
        with pytest.raises(ValueError, match=r"'\{\}'"):
            load_templates(templates)


@given(st.integers(1, 1200), st.booleans())
@settings(few, max_examples=10)
def test_colours_differ(count: int, background: bool) -> None:
    colours = distinct_colours(count, background)
    assert len(set(colours)) == len(colours) == count
    assert all(0 <= channel <= 255 for colour in colours for channel in colour)


# Windows


@many
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.data())
def test_windows_cover_an_image_and_stay_inside(height: int, width: int, crop: int, data: Any) -> None:
    stride = data.draw(st.integers(1, crop).filter(lambda step: step * 40 >= max(height, width)) | st.just(crop))
    seen = np.zeros((height, width), int)
    boxes = windows.boxes(height, width, crop, stride)
    for y0, x0, y1, x1 in boxes:
        assert (y1 - y0, x1 - x0) == (min(crop, height), min(crop, width))
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1
    assert len(set(boxes)) == len(boxes)


@few
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**16))
def test_pieces_of_a_map_merge_into_the_map(height: int, width: int, crop: int, seed: int) -> None:
    values = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed))
    boxes = windows.boxes(height, width, crop, max(1, crop // 2))
    merged = windows.merge(((box, values[:, box[0] : box[2], box[1] : box[3]]) for box in boxes), height, width)
    torch.testing.assert_close(merged, values)


# Image shapes and number types


class Patches:
    """A dense method without a network: an embedding is the mean colour of its patch."""

    def __call__(self, images: torch.Tensor) -> DenseOutput:
        height, width = images.shape[-2:]
        grid = (max(1, height // 8), max(1, width // 8))
        means = torch.nn.functional.adaptive_avg_pool2d(images, grid)
        patches = means.flatten(2).transpose(1, 2) + 0.01
        return DenseOutput(patches, patches.mean(1), grid)


@many
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["whole", "slide"]),
    st.sampled_from(["crop", "pad"]),
)
def test_any_size_in_gives_the_asked_size_out(
    height: int, width: int, to_height: int, to_width: int, mode: str, patch_fit: str
) -> None:
    window = Windows(mode=mode, crop_size=24, stride=16)
    chosen = Settings(windows=window, patch_fit=patch_fit)
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    text = torch.nn.functional.normalize(torch.eye(3), dim=-1)
    vocabulary = load_vocabulary(["red", ["green", "lime"]])
    queries = Queries.of(text, vocabulary, chosen)
    maps = pipeline.cosine_maps(Patches(), image, queries, chosen, 8)
    assert maps.shape == (1, 3, height, width)
    result = pipeline.label_image(maps[0], image[0], (to_height, to_width), queries, chosen)
    assert result.labels.shape == (to_height, to_width)
    assert result.probs is not None
    assert result.probs.shape == (2, to_height, to_width)
    assert result.probs.isfinite().all()
    assert result.probs.sum(0).max() <= 1 + 1e-5
    assert torch.equal(result.labels, result.probs.argmax(0))


@few
@given(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_labels_do_not_hang_on_chunks_or_number_type(
    dtype: torch.dtype, height: int, width: int, classes: int, seed: int
) -> None:
    logits = torch.rand(classes, height, width, generator=torch.Generator().manual_seed(seed)).to(dtype)
    settings = dict(query_class=range(classes), num_classes=classes, logit_scale=40.0, keep_probs=True)
    whole = label(logits, (7, 5), **settings)
    chunked = label(logits, (7, 5), **settings, max_elements=1)
    assert torch.equal(whole.labels, chunked.labels)
    torch.testing.assert_close(whole.probs, chunked.probs)
    assert torch.equal(whole.labels, label(logits.float(), (7, 5), **settings).labels)


@few
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 400))
def test_resizing_keeps_the_bounds(height: int, width: int, short_side: int) -> None:
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))
    resized = resize_short_side(image, short_side)
    assert 1 <= min(resized.shape[:2]) <= max(short_side, 1)
    assert max(resized.shape[:2]) <= 2048


# Damaged files


def encoded(kind: str, mode: str, frames: int = 1) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 9, 13, 3), np.uint8)
    first, *others = [Image.fromarray(frame).convert(mode) for frame in pixels]
    more = {"save_all": True, "append_images": others} if others else {}
    file = io.BytesIO()
    first.save(file, kind, **more)
    return file.getvalue()


Image.init()  # so that Image.SAVE lists what this Pillow writes
PICTURES = [
    *(encoded(kind, "RGB") for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")),
    encoded("GIF", "P"),
    encoded("PNG", "RGBA"),
    *(encoded("AVIF", "RGB") for _ in range("AVIF" in Image.SAVE)),
]
ANIMATED = [encoded(kind, "P", frames=2) for kind in ("GIF", "PNG", "TIFF")]


@st.composite
def damaged(draw: Any, originals: list[bytes]) -> bytes:
    """One of the originals with some bytes changed, and perhaps its end cut off."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@settings(many, max_examples=200)
@given(damaged(PICTURES))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_pixels_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except ValueError as error:
        assert "picture" in str(error)
    else:
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8


@settings(many, max_examples=100)
@given(damaged(ANIMATED))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_animation_is_counted_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    for read in (frame_count, read_image):
        try:
            read(path)
        except ValueError as error:
            assert "picture" in str(error)


@pytest.fixture
def checkpoints(tmp_path: Path, clip_files: dict[str, str], save_torchscript: Callable[..., None]) -> list[bytes]:
    """A CLIP as .safetensors, a small state dict as PyTorch saves it, and as a TorchScript archive."""
    file, tensors = io.BytesIO(), {"weight": torch.arange(6.0), "bias": torch.zeros(2)}
    torch.save(tensors, file)
    save_torchscript(tensors, tmp_path / "archive.pt")
    return [
        Path(clip_files["pretrained"]).read_bytes()[:4000],
        file.getvalue(),
        (tmp_path / "archive.pt").read_bytes(),
    ]


@settings(many, max_examples=60)
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_checkpoint_is_tensors_or_a_sentence(tmp_path: Path, checkpoints: list[bytes], data: Any) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(data.draw(damaged(checkpoints)))
    try:
        found = read_weights(path)
    except WeightsError as error:
        assert "weights.pt" in str(error)
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.tensors.values())


class Evil:
    """Unpickling it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("wrapped", ["alone", "in a state dict", "plain pickle"])
def test_a_checkpoint_never_runs_code(tmp_path: Path, clip_files: dict[str, str], wrapped: str) -> None:
    path, target = tmp_path / "weights.pt", tmp_path / "made"
    if wrapped == "plain pickle":
        path.write_bytes(pickle.dumps(Evil(target)))
    else:
        torch.save(Evil(target) if wrapped == "alone" else {"weight": torch.zeros(2), "x": Evil(target)}, path)
    with pytest.raises(WeightsError, match=r"weights\.pt"):
        load_clip(clip_files["model"], path)
    assert not target.exists()


@many
@given(st.one_of(TEXT, JSON.map(lambda value: json.dumps(value))))
@example('{"image": "a", "areas": {"9": [1, 2, 3]}, "ignored": 0, "invalid": 0}')
@example('{"image": "a", "areas": {"0": [1, 2]}, "ignored": 0, "invalid": 0}')
@example('{"image": "a", "areas": {"0": [1e99, 2, 3]}, "ignored": 0, "invalid": 0}')
def test_any_line_is_areas_or_refused(line: str) -> None:
    try:
        areas = ImageAreas.from_line(line, 3)
    except ValueError:
        return
    assert areas.classes.shape == (3, 3)
