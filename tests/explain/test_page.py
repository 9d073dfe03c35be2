"""The page: complete, self-contained, readable without a script; test_page_in_browser.py clicks in it."""

import base64
import importlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import rfclip
from rfclip.explain.figures import PLOTS
from rfclip.explain.page import as_grey, build_page, page_data
from rfclip.segment.find import find_pictures

ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Outline(HTMLParser):
    """Collects tags, and checks that they close in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def decoded(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


@pytest.fixture
def page(explanation):
    pictures = dict.fromkeys(PLOTS, ONE_PIXEL)
    return build_page(explanation, pictures, "Tom & <Jerry>", {"Method": "</script><b>"})


def test_page_is_well_formed_and_loads_nothing(page):
    outline = Outline(page)
    sources = [attrs["src"] for tag, attrs in outline.tags if tag == "img"]
    assert len(sources) == len(PLOTS) and all(source.startswith("data:") for source in sources)
    assert not [tag for tag, attrs in outline.tags if tag == "link" or (tag == "script" and "src" in attrs)]
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "default-src 'none'" in page


def test_without_a_script_everything_but_the_clicking_is_there(page):
    outline = Outline(page)
    (hidden,) = [attrs for _, attrs in outline.tags if "hidden" in attrs]
    assert hidden["id"] == "interactive"
    headings = [plot.title for plot in PLOTS.values()]
    assert set(headings) <= set(outline.text)
    assert all(attrs["alt"] for tag, attrs in outline.tags if tag == "img")


def test_text_is_escaped(page):
    assert "<Jerry>" not in page and "Tom &amp; &lt;Jerry&gt;" in page
    assert "</script><b>" not in page


def test_data_hold_the_attention_before_and_after(explanation):
    data = json.loads(json.dumps(page_data(explanation)))
    assert data["grid"] == [4, 6] and data["point"] == [0, 5] and len(data["colours"]) == 256
    assert [layer["name"] for layer in data["layers"]] == ["block 0", "block 1", "block 2"]
    assert (decoded(data["picture"]) == explanation.seen).all()
    for index, layer in enumerate(data["layers"]):
        assert layer["distractors"] == np.flatnonzero(explanation.distractors[index]).tolist()
        for moment, array in zip(layer["moments"], (explanation.before, explanation.after), strict=True):
            read = (decoded(moment["matrix"]) / 255.0) ** 2 * data["top"] / 24
            shown = np.minimum(array[index], data["top"] / 24)
            np.testing.assert_allclose(read, shown, atol=0.005 * data["top"] / 24)


def test_grey_is_the_square_root():
    assert as_grey(np.array([0.0, 0.25, 1.0, 7.0])).tolist() == [0, 128, 255, 255]


def test_calling_the_package_writes_page_and_pictures(segmenter, photo, classes, tmp_path):
    out = tmp_path / "new" / "folder"
    found = rfclip.explain(photo, classes, out, segmenter=segmenter, plots=["budget", "labels"], name="x")
    assert sorted(path.name for path in out.iterdir()) == ["x.html", "x_budget.png", "x_labels_compared.png"]
    text = (out / "x.html").read_text(encoding="utf-8")
    assert "beta = 0.7" in text and "150 x 100 pixels, seen as 6 x 4 patches" in text
    assert str(tmp_path) not in text
    assert found.labels.shape == (100, 150)


def test_the_package_can_be_called_without_importing_it():
    assert rfclip.__getattr__("explain") is importlib.import_module("rfclip.explain")
    assert callable(rfclip.explain) and "explain" in rfclip.__all__
    with pytest.raises(AttributeError, match="has no attribute 'explane'"):
        rfclip.explane  # noqa: B018  (asking for it is the test)


def test_nothing_is_written_if_a_plot_is_unknown(segmenter, photo, classes, tmp_path):
    with pytest.raises(ValueError, match="no plot 'x'"):
        rfclip.explain(photo, classes, tmp_path / "out", segmenter=segmenter, plots=["x"])
    assert not (tmp_path / "out").exists()


def test_pages_of_pictures_of_one_name_are_all_kept_and_say_how_they_were_read(segmenter, classes, tmp_path):
    paths = [tmp_path / folder / "x.png" for folder in ("one", "two")]
    rng = np.random.default_rng(0)
    for path in paths:
        path.parent.mkdir()
        Image.fromarray(rng.integers(0, 255, (20, 160, 4), np.uint8)).save(path)
    array = rng.integers(0, 255, (32, 32, 3), np.uint8)
    array.flags.writeable = False
    out = tmp_path / "out"
    segmenter(paths[0], classes).save(out)
    for _ in range(2):  # the second time, each picture finds its own page
        for picture in (*paths, array, array[::-1]):
            rfclip.explain(picture, classes, out, segmenter=segmenter, plots=["budget"])
        assert sorted(page.stem for page in out.glob("*.html")) == ["image", "image-2", "x", "x_png"]
    text = (out / "x_png.html").read_text(encoding="utf-8")
    assert "x.png has transparency" in text and str(tmp_path) not in text
    assert (out / "x_labels.png").exists()
    assert [picture.name for picture in find_pictures([paths[1]], out).pictures] == ["x_png"]


def test_the_page_says_that_the_short_side_was_cut(segmenter, classes, tmp_path):
    found = rfclip.explain(np.zeros((4, 3000, 3), np.uint8), classes, tmp_path, segmenter=segmenter, plots=["budget"])
    assert found.notes[0].startswith("was seen with a short side of ")
    assert f"the picture {found.notes[0]}" in (tmp_path / "image.html").read_text(encoding="utf-8")
