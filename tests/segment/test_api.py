"""OpenVocabSegmenter: picture and words in, labels out."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from PIL import Image

from rfclip import OpenVocabSegmenter, Segmentation
from rfclip.segment.files import describe
from rfclip.words.vocabulary import load_vocabulary

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "templates": ["a {}."],
    "method": {"type": "RefocusCLIP", "distraction_dims": [5, 23]},
    "short_side": 64,
    "test_cfg": {"mode": "slide", "crop_size": 64, "stride": 32},
}
WORDS = ["sky", ["temple", "pagoda"], "tree"]


@pytest.fixture
def segmenter(clip_files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenVocabSegmenter:
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    return OpenVocabSegmenter(**clip_files, **SETTINGS)


def picture(height: int = 50, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_result_has_the_size_of_the_picture(segmenter: OpenVocabSegmenter) -> None:
    out = segmenter(picture(), WORDS)
    assert out.labels.shape == (50, 90)
    assert out.labels.dtype == np.int64
    assert out.probs.shape == (3, 50, 90)
    assert out.names == ("sky", "temple", "tree")
    assert (out.labels == out.probs.argmax(0)).all()
    assert sum(out.shares().values()) == pytest.approx(1)


def test_path_pil_and_array_agree_and_lists_work(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    outs = segmenter([array, Image.fromarray(array), str(tmp_path / "a.png")], WORDS)
    for out in outs[1:]:
        np.testing.assert_array_equal(out.probs, outs[0].probs)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 7), (64, 64)])
def test_odd_sizes(segmenter: OpenVocabSegmenter, size: tuple[int, int]) -> None:
    out = segmenter(picture(*size), WORDS)
    assert out.labels.shape == size
    assert np.isfinite(out.probs).all()


def test_new_words_replace_the_old_ones(segmenter: OpenVocabSegmenter) -> None:
    first = segmenter(picture(), WORDS)
    other = segmenter(picture(), ["dog"])
    assert other.probs.shape[0] == 1
    np.testing.assert_array_equal(segmenter(picture(), WORDS).probs, first.probs)


def test_save_writes_labels_overlay_and_facts(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    out = segmenter(picture(), WORDS)
    paths = out.save(tmp_path / "deep" / "folder", stem="mine")
    assert [path.name for path in paths] == ["mine_labels.png", "mine_overlay.png", "mine.json"]
    with Image.open(paths[0]) as labels:
        np.testing.assert_array_equal(np.array(labels), out.labels)
        assert labels.mode == "P"
    with Image.open(paths[1]) as painted:
        assert painted.height > 50
    facts = json.loads(paths[2].read_text())
    assert facts["names"] == list(out.names)
    assert out.overlay().size == (90, 50)


def test_bad_input_says_what_is_wrong(segmenter: OpenVocabSegmenter) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        segmenter("nowhere.jpg", WORDS)
    with pytest.raises(ValueError, match="non-empty"):
        segmenter(picture(), [])
    with pytest.raises(ValueError, match="short_side"):
        OpenVocabSegmenter(model="tiny", short_side=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"refiner": "PAMR"}, r"refiner must be a dict such as dict\(type='PAMR'\), got 'PAMR'"),
        ({"refiner": {"type": "PAMER"}}, "did you mean 'PAMR'"),
        ({"refiner": {"type": "PAMR", "num_iter": 2.0}}, "PAMR num_iter must be a whole number of at least 0, got 2.0"),
        ({"refiner": {"type": "PAMR", "dilations": 8}}, "PAMR dilations must be a list of integers, got 8"),
        ({"refiner": {"type": "PAMR", "iterations": 1}}, "refiner PAMR has an unknown entry 'iterations'.*num_iter"),
        (
            {"refiner": {"type": "TextLaplacian", "grid": 0}},
            "TextLaplacian grid must be a whole number of at least 1, got 0",
        ),
        ({"alias_aggregation": "best"}, "alias_aggregation must be one of 'max', 'mean', 'logsumexp', got 'best'"),
        ({"area_thd": 0.1}, "area_thd=0.1 drops small classes.*give background_index=0"),
        ({"method": []}, "method must be a dict such as"),
        ({"method": {"type": "RefocusCLIP", "betta": 1}}, "unknown entry 'betta'.*did you mean 'beta'"),
        ({"method": {"type": "RefocusCLIP", "beta": "0.7"}}, "beta must be a number in 0..1, got '0.7'"),
        ({"method": {"type": "RefocusCLIP", "tau": float("nan")}}, "tau must be a number, at least 0, got nan"),
        (
            {"method": {"type": "RefocusCLIP", "layers": "first"}},
            "layers must be 'all', 'last' or a list of integers, got 'first'",
        ),
        ({"method": {"type": "RefocusCLIP", "layers": np.array(3)}}, "must be a list of integers"),
        ({"method": {"type": "RefocusCLIP", "distraction_dims": [1.0]}}, "must be integers"),
        ({"method": {"type": "RefocusCLIPRelease", "alpha": True}}, "alpha must be a number in 0..1, got True"),
        ({"method": {"type": "NACLIP", "sigma": None}}, "sigma must be a number above 0, got None"),
        ({"method": {"type": "NACLIP", "sigma": 1e-200}}, "sigma must be a number above 0"),
        ({"method": {"type": "MeanKK", "tau": 5}}, "method MeanKK has an unknown entry 'tau'"),
        ({"method": {"type": "refocusclip"}}, "did you mean 'RefocusCLIP'"),
        ({"method": {"type": "RefocusCLIP", "solver": ["eigh"]}}, "solver must be one of"),
        ({"method": {"type": "RefocusCLIP", "calibration_images": 5}}, "must be the path of a folder, got 5"),
        ({"method": {"type": 3}}, "method.type 3 is not registered"),
        ({"prior": [0.1, 0.2, 0.3]}, r"prior must be a dict, got \[0.1, 0.2, 0.3\]; it takes image_weight"),
        ({"prior": {}}, "prior lacks image_weight, mean_vector_weight, cluster_threshold"),
        ({"prior": {"image_weight": 0.1, "mean_vector_wieght": 0}}, "did you mean 'mean_vector_weight'"),
        ({"test_cfg": "slide"}, "test_cfg must be a dict, got 'slide'"),
        ({"test_cfg": False}, "test_cfg must be a dict, got False"),
        ({"test_cfg": {"crop": 224}}, "test_cfg has an unknown entry 'crop'.*did you mean 'crop_size'"),
        ({"test_cfg": {3: 224}}, "test_cfg has an unknown entry 3"),
        (
            {"test_cfg": {"mode": "silde"}},
            "test_cfg.mode must be one of 'whole', 'slide', got 'silde' .did you mean 'slide'",
        ),
        ({"test_cfg": {"mode": "slide", "crop_size": (224, 224)}}, "crop_size must be a whole number"),
        ({"logit_scale": float("inf")}, "logit_scale must be a number above 0, got inf"),
        ({"logit_scale": 1e39}, "logit_scale must be a number above 0"),
        ({"logit_scale": 10**400}, "logit_scale must be a number above 0"),
        ({"logit_scale": True}, "logit_scale must be a number above 0, got True"),
        ({"logit_scale": "40"}, "logit_scale must be a number above 0, got '40'"),
        ({"logit_scale": np.zeros((9, 9))}, "logit_scale must be a number above 0, got array"),
        ({"background_index": 0.5, "prob_thd": 0.9}, "background_index must be a whole number of at least 0, got 0.5"),
        ({"background_index": True}, "background_index must be a whole number of at least 0, got True"),
        ({"background_index": -1}, "background_index must be a whole number of at least 0, got -1"),
        ({"background_index": "background"}, "background_index must be a whole number"),
        ({"prob_thd": "0.1"}, "prob_thd must be a number in 0..1, got '0.1'"),
        ({"prob_thd": None}, "prob_thd must be a number in 0..1, got None"),
        ({"keep_probs": "no"}, "keep_probs .*must be True or False, got 'no'"),
        ({"keep_probs": 1}, "must be True or False, got 1"),
        ({"patch_fit": None}, "patch_fit must be one of 'crop', 'pad', 'pad_black', got None"),
        ({"short_side": 336.0}, "short_side must be a whole number of at least 1, got 336.0"),
        ({"templates": 5}, "templates must be a non-empty list"),
        ({"templates": {"a {}": 1}}, "templates must be a non-empty list"),
        ({"templates": ["a \ud800 {}"]}, "no sound Unicode"),
        ({"device": "gpu"}, "device must be one that torch finds here, such as 'cpu' or 'cuda:1', got 'gpu'"),
        ({"device": ""}, "device must be one"),
        ({"device": True}, "device must be one"),
        ({"device": "meta"}, "device must be one"),
        ({"device": "cuda:99"}, "device must be one"),
    ],
    ids=str,
)
def test_a_knob_of_another_type_or_range_is_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        OpenVocabSegmenter("tiny", **{**SETTINGS, **settings})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_numbers_of_numpy_are_numbers(clip_files: dict[str, str], tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "logit_scale": np.float32(40),
        "prob_thd": np.float64(0.25),
        "background_index": np.int64(0),
        "short_side": np.int32(64),
        "keep_probs": np.bool_(True),
        "test_cfg": ConfigDict(mode="slide", crop_size=np.int16(64), stride=np.uint8(32)),
        "prior": {"image_weight": np.float16(0.5), "mean_vector_weight": 0, "cluster_threshold": 1},
        "refiner": {"type": "PAMR", "num_iter": np.int64(1), "dilations": np.array([1, 2])},
        "method": {"type": "RefocusCLIP", "distraction_dims": np.array([5, 23]), "beta": np.float32(0.5)},
    }
    segmenter = OpenVocabSegmenter(**clip_files, **{**SETTINGS, **given})
    segmenter(picture(), WORDS).save(tmp_path, facts=describe(segmenter))
    facts = json.loads((tmp_path / "image.json").read_text())
    assert facts["prob_thd"] == 0.25 and facts["refiner"] == {"type": "PAMR", "num_iter": 1, "dilations": [1, 2]}
    assert facts["method"]["beta"] == 0.5 and facts["background_index"] == 0


def test_a_picture_without_pixels_is_one_sentence(segmenter: OpenVocabSegmenter) -> None:
    for size in ((0, 0), (5, 0), (0, 5)):
        with pytest.raises(ValueError, match=f"the image is empty: it has {size[0]} x {size[1]} pixels"):
            segmenter(Image.new("RGB", size), WORDS)
    with pytest.raises(FileNotFoundError, match=r"no image file 'x+\.\.\.x+': "):
        segmenter("x" * 5000, WORDS)


def test_without_probabilities_the_labels_are_the_same(
    segmenter: OpenVocabSegmenter, clip_files: dict[str, str], tmp_path: Path
) -> None:
    lean = OpenVocabSegmenter(**clip_files, **SETTINGS, keep_probs=False)
    out = lean(picture(), WORDS)
    assert out.probs is None
    np.testing.assert_array_equal(out.labels, segmenter(picture(), WORDS).labels)
    with pytest.raises(ValueError, match="keep_probs=True"):
        out.save(tmp_path, probs=True)
    assert list(tmp_path.glob("image*")) == []


def test_save_takes_probabilities_and_facts(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    out = segmenter(picture(), WORDS)
    paths = out.save(tmp_path, "x", probs=True, facts={"mood": "good"})
    assert paths[-1].name == "x_probs.npz"
    with np.load(paths[-1]) as kept:
        np.testing.assert_allclose(kept["probs"], out.probs, atol=1e-3)
    assert json.loads((tmp_path / "x.json").read_text())["mood"] == "good"


def test_saving_without_probabilities_removes_those_of_before(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    segmenter(picture(), WORDS).save(tmp_path, probs=True)
    segmenter(picture(), WORDS).save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("image*")) == [
        "image.json",
        "image_labels.png",
        "image_overlay.png",
    ]


def test_the_json_is_there_whole_or_not_at_all(
    segmenter: OpenVocabSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = segmenter(picture(), WORDS)
    out.save(tmp_path, facts={"image": "bad\udcff.png"})  # a file name that is not UTF-8
    assert json.loads((tmp_path / "image.json").read_text(encoding="utf-8"))["image"] == "bad\udcff.png"
    before = (tmp_path / "image.json").read_bytes()

    def fill(path: Path, content: bytes) -> None:
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OSError, match="No space left"):
        out.save(tmp_path, facts={"image": "other.png"})
    assert (tmp_path / "image.json").read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []


def test_arguments_that_cannot_be_used_are_one_sentence(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    out = segmenter(picture(), WORDS)
    for stem in ("", "a/b", str(tmp_path), 3, "a\0"):
        with pytest.raises(ValueError, match="stem is how the names of the files begin"):
            out.save(tmp_path, stem)
    with pytest.raises(ValueError, match=r"opacity is a share, 0..1, got 'x'"):
        out.overlay("x")
    for method in ({"type": "Nonsense"}, {"type": None}, {}, "SCLIP"):
        with pytest.raises((ValueError, TypeError), match=r"RefocusCLIP"):
            segmenter.changed(method, 0.0, None)
    with pytest.raises(ValueError, match="Nonsense"):
        OpenVocabSegmenter("tiny", method={"type": "Nonsense"})


def test_the_tiny_clip_refuses_other_weights() -> None:
    with pytest.raises(ValueError, match=r"brings its own weights.*mine\.pt"):
        OpenVocabSegmenter("tiny", "mine.pt", "cpu")


def test_filling_the_array_anew_does_not_change_a_result(segmenter: OpenVocabSegmenter) -> None:
    buffer = picture()
    out = segmenter(buffer, WORDS)
    before = np.array(out.overlay())
    buffer[:] = 0
    np.testing.assert_array_equal(np.array(out.overlay()), before)


def test_classes_of_one_name_have_an_entry_and_a_colour_each(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([[0, 1, 1, 3]])
    names, colours = ("dog", "dog", "cat", "犬"), ((255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9))
    shown: list[Any] = []
    monkeypatch.setattr("rfclip.segment.result.with_legend", lambda painted, entries: shown.extend(entries) or painted)
    out = Segmentation(labels, None, names, colours, np.zeros((1, 4, 3), np.uint8))
    out.overlay(legend=True)
    assert [entry[1:] for entry in shown] == [((0, 255, 0), 0.5), ((255, 0, 0), 0.25), ((9, 9, 9), 0.25)]
    assert [entry[0] for entry in shown[:2]] == ["dog", "dog"]
    assert out.shares() == {"dog": 0.75, "cat": 0.0, "犬": 0.25}


def test_a_prepared_vocabulary_is_not_embedded_again(
    segmenter: OpenVocabSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = segmenter.prepare(WORDS)
    assert words == load_vocabulary(WORDS)
    monkeypatch.setattr("rfclip.pipeline.engine.text_embeddings", None)
    assert segmenter(picture(), words).names == words.classes


def test_threads_share_a_segmenter(segmenter: OpenVocabSegmenter) -> None:
    """With words that change from call to call, each gets what it would get alone."""
    lists = [WORDS, ["dog", "cat"], ["sky"]]
    alone = [segmenter(picture(), words).probs for words in lists]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda words: segmenter(picture(), words).probs, lists * 3))
    for index, probs in enumerate(together):
        np.testing.assert_array_equal(probs, alone[index % 3])


def test_inference_mode_changes_nothing(segmenter: OpenVocabSegmenter) -> None:
    with torch.inference_mode():
        inside = segmenter(picture(), WORDS).probs
    np.testing.assert_array_equal(segmenter(picture(), WORDS).probs, inside)


class Pictures(torch.utils.data.Dataset):
    """Segments inside a DataLoader's worker."""

    def __init__(self, segmenter: OpenVocabSegmenter) -> None:
        self.segmenter = segmenter

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> np.ndarray:
        return self.segmenter(picture(20 + index), WORDS).labels


def test_works_in_the_worker_of_a_data_loader(segmenter: OpenVocabSegmenter) -> None:
    loader = torch.utils.data.DataLoader(Pictures(segmenter), batch_size=None, num_workers=1)
    for index, labels in enumerate(loader):
        np.testing.assert_array_equal(labels.numpy(), segmenter(picture(20 + index), WORDS).labels)


def test_the_size_that_the_network_saw_and_what_was_cut(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    out = segmenter(picture(100, 180), WORDS)
    assert out.seen == (64, 115) and out.notes == ()
    strip = segmenter(picture(2, 200), WORDS)
    assert strip.seen == (20, 2048)
    assert strip.notes == ("was seen with a short side of 20 pixels instead of 64: no side becomes longer than 2048",)
    facts = json.loads(strip.save(tmp_path)[2].read_text())
    assert facts["seen"] == [20, 2048]
    assert facts["note"] == f"the picture {strip.notes[0]}"


def test_what_was_guessed_stands_in_the_json(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    Image.fromarray(np.full((30, 30), 900, np.uint16)).save(tmp_path / "deep.png")
    out = segmenter(tmp_path / "deep.png", WORDS)
    note = json.loads(out.save(tmp_path / "out")[2].read_text())["note"]
    assert note == f"{tmp_path / 'deep.png'} has values up to 900; white was taken to be 1023"


def test_results_saved_in_a_loop_are_all_kept(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one/x.png", "two/x.png", "two/x.bmp", "two/y.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture()).save(path)
    out = tmp_path / "out"
    for _ in range(2):  # the second time, each picture finds its own results
        names = [segmenter(path, WORDS).save(out)[2].stem for path in paths]
        assert names == ["x", "x_png", "x_bmp", "y"]
    with Image.open(paths[3]) as opened:
        assert segmenter(opened, WORDS).save(out)[2].stem == "y"
    assert json.loads((out / "y.json").read_text())["source"] == "../two/y.png"
    beside = segmenter(paths[3], WORDS)
    (paths[3].parent / "y.json").write_text('{"shapes": []}')  # somebody's own
    assert beside.save(paths[3].parent)[2].stem == "y_png"


def test_results_of_arrays_are_numbered(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    arrays = [picture() // number for number in (1, 2, 3)]
    arrays.append(arrays[2].transpose(1, 0, 2).reshape(arrays[2].shape[1], -1, 3))
    arrays.append(arrays[2].reshape(arrays[3].shape))  # the same bytes in another shape
    for _ in range(2):
        names = [segmenter(array, WORDS).save(tmp_path)[2].stem for array in arrays]
        assert names == ["image", "image-2", "image-3", "image-4", "image-5"]
    assert [path.name for path in segmenter(arrays[2], WORDS).save(tmp_path, "image")][2] == "image.json"


def test_a_result_prints_as_one_line_and_shows_in_notebooks(segmenter: OpenVocabSegmenter, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "x.png")
    out = segmenter(tmp_path / "x.png", ["sky", "two\nlines"])
    assert repr(out) == str(out) == f"<Segmentation of x.png, 50 x 90 pixels: {out.summary()}>"
    assert "\n" not in repr(out) and " %" in repr(out)
    with Image.open(io.BytesIO(out._repr_png_())) as shown:
        assert shown.size == out.overlay(legend=True).size
