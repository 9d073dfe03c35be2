"""The vocabulary audit: scores as the pipeline gives them, each picture encoded once, names one by one."""

import csv
import json

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from rfclip.analysis import audit_charts
from rfclip.analysis.audit import Audit, Labelled, audit, winners, without_each, write_table
from rfclip.analysis.audit_report import List, Report, write
from rfclip.words.lists import DISTRACTORS, plain_vocabulary, with_distractors
from rfclip.words.vocabulary import load_vocabulary

WORDS = load_vocabulary([["sky", "cloud"], "grass", ["cat", "kitten", "dog"]])
OTHER = load_vocabulary(["blue", "green", "fur"])


def settings_of(clip_files):
    return {
        "type": "RFCLIP",
        "clip": clip_files,
        "vocabulary": ["sky", "grass", "cat"],
        "templates": ["a {}."],
        "method": {"type": "RefocusCLIP", "distraction_dims": [5, 23]},
        "prior": {"image_weight": 0.1, "mean_vector_weight": 0.03, "cluster_threshold": 0.3},
        "test_cfg": {"mode": "slide", "crop_size": 48, "stride": 32, "window_batch": 2},
    }


@pytest.fixture
def model(clip_files, tmp_path, monkeypatch):
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    return MODELS.build(settings_of(clip_files))


@pytest.fixture
def pictures(make_images):
    images = make_images(2, 64, 80)
    truth = torch.randint(0, 3, (2, 90, 110), generator=torch.Generator().manual_seed(0))
    truth[:, :10] = 255
    return [Labelled(f"{i}.png", images[i : i + 1], truth[i]) for i in range(2)]


def test_scores_are_those_of_the_segmenter(model, pictures, clip_files):
    found = audit(model.engine, pictures, {"words": WORDS, "other": OTHER})
    for name, words in (("words", WORDS), ("other", OTHER)):
        other = MODELS.build({**settings_of(clip_files), "vocabulary": [list(row) for row in words.names]})
        totals = np.zeros((3, 3))
        for picture in pictures:
            sample = other.predict(picture.inputs, [_sample(picture)])[0]
            predicted, truth = sample.pred_sem_seg.data[0].numpy(), picture.truth.numpy()
            for index in range(3):
                a, b = (predicted == index) & (truth != 255), truth == index
                totals[index] += [(a & b).sum(), a.sum(), b.sum()]
        expected = 100 * totals[:, 0] / (totals[:, 1] + totals[:, 2] - totals[:, 0])
        np.testing.assert_allclose(found.iou[name], expected)
        assert found.total(name) == pytest.approx(np.nanmean(expected))


def _sample(picture):
    from mmseg.structures import SegDataSample

    return SegDataSample(metainfo={"ori_shape": tuple(picture.truth.shape)})


def test_a_name_left_out_scores_as_a_vocabulary_without_it(model, pictures):
    found = audit(model.engine, pictures, {"words": WORDS})
    assert found.names == ((0, "sky"), (0, "cloud"), (1, "grass"), (2, "cat"), (2, "kitten"), (2, "dog"))
    shorter = load_vocabulary([["sky", "cloud"], "grass", ["cat", "dog"]])
    assert found.without[4] == audit(model.engine, pictures, {"x": shorter}, leave_out=False).total("x")
    assert np.isnan(found.without[2])  # the only name of its class
    assert [query for query, _ in without_each(WORDS)] == [0, 1, 3, 4, 5]


def test_each_piece_is_encoded_once(model, pictures, monkeypatch):
    calls, method = [], model.method
    monkeypatch.setattr(
        model, "method", lambda vit, images, record=None: calls.append(len(images)) or method(vit, images)
    )
    audit(model.engine, pictures[:1], {"words": WORDS, "other": OTHER})
    several = list(calls)
    calls.clear()
    audit(model.engine, pictures[:1], {"words": WORDS}, leave_out=False)
    assert several == calls


def test_winners_count_pixels_of_labelled_classes():
    maps = torch.tensor([[[0.1, 0.9]], [[0.5, 0.2]]])  # the second name wins on the left, the first on the right
    truth = torch.tensor([[0, 1], [255, 1], [7, 0]])
    assert winners(maps, truth, 2).tolist() == [[1, 1], [2, 0]]


def test_wrong_pixels_and_where_they_come_from():
    won = np.array([[5, 1, 0], [2, 0, 3], [4, 0, 0]])
    found = Audit(("a", "b", "c"), {}, ((0, "x"), (1, "y"), (1, "z")), won, np.zeros(3))
    assert found.wrong_pixels().tolist() == [6, 1, 0]
    assert [found.mostly_from(query) for query in range(3)] == ["c", "a", ""]


def test_table_and_plot(model, pictures, tmp_path):
    found = audit(model.engine, pictures, {"published": WORDS, "plain": plain_vocabulary(WORDS)})
    write_table(found, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["kind"] for row in rows] == ["total"] + ["class"] * 3 + ["name"] * 6
    assert float(rows[0]["IoU_published_%"]) == pytest.approx(found.total("published"), abs=0.01)
    assert sum(float(row["pixels_won_%"]) for row in rows[4:]) == pytest.approx(100, abs=0.1)
    assert rows[6]["name"] == "grass" and rows[6]["mIoU_change_without_it"] == ""
    figure = audit_charts.vocabulary_audit(
        dict(found.iou), [1.0, 2.0], found.classes, ["cat (cat)"], np.array([3.0]), "title"
    )
    assert "mIoU of all" in [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert figure.axes[1].patches[0].get_width() == 3


def test_vocabularies_of_different_sizes(model, pictures):
    with pytest.raises(ValueError, match="'two' has 2 classes instead of 3"):
        audit(model.engine, pictures, {"words": WORDS, "two": load_vocabulary(["a", "b"])})


def test_a_further_class_of_distractors_is_wrong_everywhere(model, pictures):
    """As if its pixels had no class at all: the others keep their labelled pixels and lose what it wins."""
    more = with_distractors(WORDS, ["sea", "sand"])
    assert more.classes[-1] == DISTRACTORS
    found = audit(model.engine, pictures, {"words": WORDS, "more": more}, leave_out=False, resamples=5)
    both = load_vocabulary([*(list(row) for row in WORDS.names), ["sea", "sand"]])
    four = audit(model.engine, pictures, {"four": both}, leave_out=False)
    np.testing.assert_array_equal(found.iou["more"], four.iou["four"][:3])
    assert found.classes == WORDS.classes


def test_what_a_list_is_worth_is_its_difference_over_the_images(model, pictures, tmp_path):
    lists = {"words": WORDS, "other": OTHER}
    audits = {name: audit(model.engine, pictures, lists, leave_out=False, resamples=20) for name in ("a", "b")}
    found = audits["a"]
    report = Report(
        audits, {name: {key: List(words, f"what {key} is") for key, words in lists.items()} for name in audits}, "Tiny."
    )
    rows = report.rows()
    assert [(row["benchmark"], row["list"]) for row in rows] == [
        (benchmark, name) for benchmark in ("a", "b", "all") for name in lists
    ]
    worth = found.total("other") - found.total("words")
    assert [row["difference"] for row in rows] == pytest.approx([0, worth] * 3)
    assert rows[1]["images"] == 2 and rows[5]["images"] == 4 and rows[1]["low"] is None
    paths = write(report, tmp_path)
    assert [path.name for path in paths] == ["audit.json", "audit.csv", "audit.md", "audit.png"]
    assert all(path.stat().st_size for path in paths)
    kept = json.loads(paths[0].read_text())
    assert kept["benchmarks"]["a"]["lists"]["other"] == [["blue"], ["green"], ["fur"]]
    assert kept["benchmarks"]["a"]["IoU"]["words"]["grass"] == pytest.approx(found.iou["words"][1])
    lines = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert float(lines[1]["difference"]) == pytest.approx(worth)
    table = paths[2].read_text()
    assert "## all" in table and "what other is" in table and f"{worth:+.2f}" in table


def test_plot_of_what_lists_are_worth():
    values = np.array([[1.0, 0.5, 1.5], [np.nan] * 3])
    figure = audit_charts.worth(["clean", "plain"], {"voc21": values, "ade20k": values + 1}, "points", "title")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["clean", "plain"]
    dots = [line for line in axis.lines if line.get_label() in ("voc21", "ade20k")]
    assert [line.get_xdata()[0] for line in dots] == [1, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["voc21", "ade20k"]
    segments = [collection.get_segments()[0][:, 0].tolist() for collection in axis.collections]
    assert segments == [[0.5, 1.5], [1.5, 2.5]]
