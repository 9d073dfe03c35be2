"""What the demo does with pictures and words, without a browser."""

import html
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfclip.demo import studio as S
from rfclip.demo.viewer import LONGEST_SIDE, frame, viewer
from rfclip.methods import METHODS, MaskCLIP
from rfclip.segment.api import OpenVocabSegmenter, Segmentation


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S.Studio]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield S.Studio("tiny", None, "cpu", 336)


def result(names: tuple[str, ...], shape: tuple[int, int] = (4, 6)) -> Segmentation:
    labels = np.zeros(shape, np.int64)
    labels[:, 0] = len(names) - 1
    probs = np.full((len(names), *shape), 1 / len(names), np.float32)
    colours = tuple((index % 256, 1, 2) for index in range(len(names)))
    return Segmentation(labels, probs, names, colours, np.full((*shape, 3), 90, np.uint8))


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_a_sample_is_segmented_with_its_words(studio: S.Studio) -> None:
    out = studio.segment(S.sample("drawn scene"), S.SAMPLES["drawn scene"][1], "auto", "paper")
    assert out.names == ("sky", "grass", "cat", "building")
    assert min(out.shares().values()) > 0.1
    assert out.probs is not None


def test_methods_share_one_clip(studio: S.Studio) -> None:
    image = S.sample("drawn scene")
    chosen = ("paper", "release", "sc_clip", "vanilla_clip", "RefocusVariant")
    assert set(chosen) < set(S.methods()) and S.methods()[0] == "paper" and "Refocused" not in S.methods()
    found = {method: studio.segment(image, "sky, grass, cat", "auto", method).labels for method in chosen}
    assert not np.array_equal(found["paper"], found["vanilla_clip"])


def test_a_method_is_built_once_by_all_threads(studio: S.Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    built, change = [], OpenVocabSegmenter.changed
    monkeypatch.setattr(
        OpenVocabSegmenter, "changed", lambda *given: time.sleep(0.05) or built.append(given) or change(*given)
    )
    image, studio = S.sample("drawn scene")[:64, :64], S.Studio("tiny", None, "cpu", 336)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: studio.segment(image, "sky, cat", "auto", "paper"), range(4)))
    studio.segment(image, "sky, cat", "words", "paper")
    assert len(built) == 2  # without a background, and with one


def test_a_method_that_cannot_be_built_says_why(studio: S.Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(MaskCLIP):
        def check_tower(self, vit: Any) -> None:
            raise ValueError("Wider needs a tower of width 999")

    monkeypatch.setattr(METHODS, "_classes", {**METHODS._classes, "Wider": Wider})
    assert "Wider" in S.methods()
    with pytest.raises(ValueError, match=r"^Wider needs a tower of width 999"):
        studio.segment(S.sample("drawn scene"), "sky", "auto", "Wider")


@pytest.mark.parametrize("method", [None, ["paper"], "nothing"])
def test_methods_that_are_refused(studio: S.Studio, method: Any) -> None:
    with pytest.raises(ValueError, match=r"method is one of paper, .*release.*, got"):
        studio.segment(S.sample("drawn scene"), "sky", "auto", method)


def test_a_background_takes_what_is_uncertain(studio: S.Studio) -> None:
    assert studio.segment(S.sample("drawn scene"), "sky, cat", "words", "paper").names[0] == "background"


def test_the_explanation_is_a_page(studio: S.Studio) -> None:
    page = studio.explain(S.sample("drawn scene"), "sky, grass", "auto", "paper")
    assert "What RefocusCLIP does with the picture" in page
    assert "Click a patch" in page
    assert "smaller copy" not in page


def test_a_large_picture_is_explained_on_a_smaller_copy(studio: S.Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S, "EXPLAINED_PIXELS", 19200)
    page = studio.explain(S.sample("drawn scene"), "sky, grass", "auto", "paper")
    assert "160 x 120 pixels, seen as " in page
    assert "(a smaller copy: the picture has 320 x 240 pixels)" in page
    monkeypatch.setattr(S, "MOST_VALUES", 19200)
    with pytest.raises(ValueError, match="2 classes on 160 x 120 pixels"):
        studio.explain(S.sample("drawn scene"), "sky, grass", "auto", "paper")


@pytest.mark.parametrize(
    ("words", "background", "message"),
    [
        ("", "auto", "type the words"),
        (" \n ", "auto", "type the words"),
        ("a" * (S.MOST_CHARACTERS + 1), "auto", "name fewer things"),
        (",".join(f"thing {index}" for index in range(S.MOST_NAMES + 1)), "auto", "name fewer things"),
        ("/etc/passwd.txt", "auto", "reads no vocabulary files"),
        ("../secret.JSON", "auto", "reads no vocabulary files"),
        ("sky", "maybe", "background is one of auto, words, none"),
    ],
)
def test_words_that_are_refused(words: str, background: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S.read_words(words, background)


def test_words_name_a_shipped_vocabulary() -> None:
    assert len(S.read_words("cityscapes", "auto").names) == 19


def test_too_many_classes_on_a_large_picture(studio: S.Studio) -> None:
    words = ", ".join(f"thing {index}" for index in range(100))
    with pytest.raises(ValueError, match="100 classes on 3000 x 2000 pixels"):
        studio.segment(np.zeros((2000, 3000, 3), np.uint8), words, "none", "paper")


def test_an_upload_is_read(tmp_path: Path) -> None:
    Image.new("RGBA", (7, 5), (1, 2, 3, 255)).save(tmp_path / "a.png")
    image, caption = S.read_upload(tmp_path / "a.png")
    assert image.tolist() == [[[1, 2, 3]] * 7] * 5
    assert caption == "a.png: 7 x 5 pixels"


def test_of_an_animation_it_is_said_that_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (7, 5), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert S.read_upload(tmp_path / "a.gif")[1] == "a.gif: 7 x 5 pixels, the first of 3 frames"


@pytest.mark.parametrize(
    ("size", "expected"), [((30, 20), (30, 20)), ((20000, 30), (1000, 62)), ((1, 5000), (62, 1000)), ((1, 1), (1, 1))]
)
def test_the_preview_is_small_and_never_too_slim(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert S.thumbnail(np.zeros((size[1], size[0], 3), np.uint8)).shape[1::-1] == expected


def test_uploads_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose a picture first"):
        S.read_upload(None)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)  # no other program is started
    Image.new("RGB", (50, 40)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:300])
    for name in ("bad.png", "cut.jpg", "gone.png", "eps.png"):
        with pytest.raises(ValueError, match=f"^{name} cannot be read as a picture") as refused:
            S.read_upload(tmp_path / name)
        assert str(tmp_path) not in str(refused.value)
    Image.new("RGB", (60, 50)).save(tmp_path / "wide.png")
    monkeypatch.setattr(S, "MOST_PIXELS", 2999)
    with pytest.raises(ValueError, match=r"wide\.png has 60 x 50 pixels"):
        S.read_upload(tmp_path / "wide.png")
    monkeypatch.setattr(S, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"wide\.png is larger than"):
        S.read_upload(tmp_path / "wide.png")


def test_samples() -> None:
    for name in S.SAMPLES:
        image = S.sample(name)
        assert image.dtype == np.uint8 and image.ndim == 3
    with pytest.raises(ValueError, match="no sample 'x'; there are drawn scene"):
        S.sample("x")


def test_the_page_has_a_legend_and_escapes_names() -> None:
    page = viewer(result(("sky", "</script><b>&")), 0.25)
    assert data_of(page)["legend"] == [{"index": 0, "share": "83.3%"}, {"index": 1, "share": "16.7%"}]
    assert data_of(page)["names"] == ["sky", "</script><b>&"]
    assert "</script><b>" not in page
    assert 'value="25"' in page
    assert html.unescape(frame(page, "x")).count("</script>") == 2


def test_a_large_picture_is_shown_smaller() -> None:
    data = data_of(viewer(result(("a", "b"), (20, LONGEST_SIDE * 2))))
    assert (data["width"], data["height"]) == (LONGEST_SIDE, 10)


def test_pages_that_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 256 classes, got 257"):
        viewer(result(tuple(map(str, range(257)))))
    with pytest.raises(ValueError, match="opacity is a share"):
        viewer(result(("a", "b")), 1.5)
    kept = result(("a", "b"))
    with pytest.raises(ValueError, match="keep_probs=True"):
        viewer(Segmentation(kept.labels, None, kept.names, kept.colours, kept.image))


def test_the_segmenter_can_be_changed_and_keeps_its_clip(studio: S.Studio) -> None:
    seg = OpenVocabSegmenter("tiny", device="cpu", short_side=112)
    image = S.sample("drawn scene")
    before = seg(image, ["sky", "cat"]).labels
    other = seg.changed(method={"type": "VanillaCLIP"}, prob_thd=0.0, background_index=None)
    assert not np.array_equal(other(image, ["sky", "cat"]).labels, before)
    np.testing.assert_array_equal(seg(image, ["sky", "cat"]).labels, before)
