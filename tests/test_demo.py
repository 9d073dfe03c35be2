"""What the demo does with pictures and words, without a browser."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfclip.api import OpenVocabSegmenter, Segmentation
from rfclip.demo import studio as S
from rfclip.demo.viewer import LONGEST_SIDE, frame, viewer


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S.Studio:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path))
    return S.Studio("tiny", None, "cpu", 336)


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
    found = {method: studio.segment(image, "sky, grass, cat", "auto", method).labels for method in S.METHODS}
    assert not np.array_equal(found["paper"], found["vanilla_clip"])


def test_a_background_takes_what_is_uncertain(studio: S.Studio) -> None:
    assert studio.segment(S.sample("drawn scene"), "sky, cat", "words", "paper").names[0] == "background"


def test_the_explanation_is_a_page(studio: S.Studio) -> None:
    page = studio.explain(S.sample("drawn scene"), "sky, grass", "auto", "paper")
    assert "What RefocusCLIP does with the picture" in page
    assert "Click a patch" in page


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
    assert S.read_upload(tmp_path / "a.png").tolist() == [[[1, 2, 3]] * 7] * 5


def test_uploads_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose a picture first"):
        S.read_upload(None)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (50, 40)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:300])
    for name in ("bad.png", "cut.jpg", "gone.png"):
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
