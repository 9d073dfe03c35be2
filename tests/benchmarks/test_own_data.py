"""Runs on data sets of somebody's own: every kind that mmengine knows, and all that is told about what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfclip.benchmarks.options import Options, build_config
from rfclip.plugin.loading import LoadImageFromFile
from rfclip.runs.run import UserError, is_finished, run
from rfclip.runs.summary import read_results, table
from tests.runs.test_run import ROOT, command
from tests.support.tiff_files import tiff_bytes

PIPELINE = """[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]"""
UNLABELLED = "[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]"
CONFIG = f"""
_base_ = ["{ROOT}/configs/_base_/default_runtime.py"]
custom_imports = dict(imports=["rfclip", "tests.support.fake_segmentor"], allow_failed_imports=False)
pipeline = {PIPELINE}
own = dict(type='BaseSegDataset', data_root='data', data_prefix=dict(img_path='img', seg_map_path='ann'),
           pipeline=pipeline, metainfo=dict(classes=('sky', 'tree', 'road')))
test_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=own)
model = dict(type='FakeSegmentor', clip=dict(model='ViT-B-16'), vocabulary=['sky', 'tree', 'road'])
"""
NAMES = ("a/1", "b/1", "b/2")
Write = Callable[..., Options]


def labels(seed: int = 0, size: tuple[int, int] = (12, 20), classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """write(config='', maps=None): a folder with pictures, label maps by name, and a config; the options of a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)

    def _write(config: str = "", maps: Mapping[str, np.ndarray] | None = None, data: str = "data") -> Options:
        maps = {name: labels(index) for index, name in enumerate(NAMES)} if maps is None else maps
        for folder in ("img", "ann"):
            Path(data, folder).mkdir(parents=True, exist_ok=True)
        for index, (name, values) in enumerate(maps.items()):
            picture = np.random.default_rng(index).integers(0, 256, (*values.shape[:2], 3), np.uint8)
            for folder, suffix, array in (("img", "jpg", picture), ("ann", "png", values)):
                path = Path(data, folder, f"{name}.{suffix}")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
        Path("own.py").write_text(CONFIG + config)
        return Options(Path("own.py"), work_dir=Path("runs"))

    return _write


def changed(options: Options, **changes: Any) -> Options:
    return Options(**{**vars(options), **changes})


def refused(options: Options, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        run(changed(options, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_pictures_of_one_name_in_several_folders_keep_their_paths(write: Write) -> None:
    run(changed(write(), out="out", show_dir="show"))
    assert files("out") == files("show") == [f"{name}.png" for name in NAMES]


def test_pictures_that_differ_in_the_suffix_only_keep_it(write: Write) -> None:
    options = write("test_dataloader['dataset']['img_suffix'] = ''\ntest_dataloader['dataset']['pipeline'].pop(1)\n")
    Image.open("data/img/a/1.jpg").save("data/img/a/1.png")
    run(changed(options, out="out"))
    assert files("out") == ["a/1.jpg.png", "a/1.png.png", "b/1.jpg.png", "b/2.jpg.png"]


def test_other_processes_than_the_first_paint_too(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmengine.dist.utils.is_main_process", lambda: False)  # asked by mmengine's visualizers
    run(changed(write(), show_dir="show"))
    assert files("show") == [f"{name}.png" for name in NAMES]


@pytest.mark.parametrize(("out", "show"), [("data/ann", None), ("same", "same")])
def test_nothing_of_the_data_set_or_of_the_run_is_overwritten(write: Write, out: str, show: str | None) -> None:
    options = write()
    before = Path("data/ann/a/1.png").read_bytes()
    assert refused(options, out=out, show_dir=show)
    assert Path("data/ann/a/1.png").read_bytes() == before


def test_joined_data_sets_are_one(write: Write) -> None:
    write(data="more")
    parts = "[dict(own), dict(own, data_root='more')]"
    options = write(f"test_dataloader['dataset'] = dict(type='ConcatDataset', datasets={parts})\n")
    results = run(changed(options, out="out"))
    assert results["manifest"]["data"]["images"] == 2 * len(NAMES)
    assert files("out") == [f"{data}/img/{name}.png" for data in ("data", "more") for name in NAMES]
    assert is_finished(changed(options, out="out"))


def test_joined_data_sets_of_other_conventions_are_refused(write: Write) -> None:
    parts = "[dict(own), dict(own, reduce_zero_label=True)]"
    write(data="more")
    options = write(f"test_dataloader['dataset'] = dict(type='ConcatDataset', datasets={parts})\n")
    assert "meta information" in refused(options)


@pytest.mark.parametrize(
    "wrapper",
    ["type='RepeatDataset', times=2, dataset=own", "type='ClassBalancedDataset', oversample_thr=1.0, dataset=own"],
)
def test_wrappers_that_show_images_twice_are_refused(write: Write, wrapper: str) -> None:
    sentence = refused(write(f"test_dataloader['dataset'] = dict({wrapper})\n"))
    assert "every image once" in sentence and wrapper.split("'")[1] in sentence


@pytest.mark.parametrize(
    ("config", "images"),
    [
        ("test_dataloader.update(batch_size=2, drop_last=True)", 3),
        ("test_dataloader['dataset'].update(lazy_init=True, serialize_data=False)", 3),
        ("test_dataloader['dataset'].update(indices=2)", 2),
        ("test_dataloader['dataset'].update(indices=[2, 0])", 2),
        ("test_dataloader['sampler'] = dict(type='mmengine.DefaultSampler', shuffle=True, round_up=True)", 3),
    ],
)
def test_settings_of_the_loader_count_every_image_once(write: Write, config: str, images: int) -> None:
    results = run(write(config + "\n"))
    assert results["manifest"]["data"]["images"] == results["manifest"]["time"]["images"] == images


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("test_dataloader['num_batch_per_epoch'] = 1", "num_batch_per_epoch would leave images out"),
        ("test_dataloader['batch_sampler'] = dict(type='Own')", "batch_sampler is not used"),
        ("test_dataloader['sampler'] = dict(type='InfiniteSampler')", "sampler must be one of"),
        ("test_dataloader['dataset']['indices'] = 0", "indices leaves no image"),
        ("test_dataloader['dataset']['indices'] = [9]", "a list of some of 0..2"),
        ("test_dataloader['dataset']['indices'] = [True, False, True]", "a list of some of 0..2"),
        ("test_dataloader['dataset']['indices'] = '1'", "got 1, expected a number of images"),
        ("own['img_suffix'] = None", "img_suffix of a data set must be a text, got None"),
        ("own['img_suffix'] = ('.jpg', '.png')", "img_suffix of a data set must be a text, got ('.jpg', '.png')"),
        ("own['img_suffix'] = ''", "img_suffix is empty, so that label maps cannot be told"),
        ("own['data_prefix'] = None", "data_prefix of a data set must be dict(img_path=..., seg_map_path=...)"),
        ("own['data_prefix']['seg_map_path'] = None", "data_prefix of a data set must be dict(img_path=..., seg"),
        ("own['pipeline'] = None", "pipeline of a data set must be a list of transforms, got None"),
        ("own['data_prefix'] = dict(img_dir='img', ann_dir='ann')", "data_prefix of a data set must be dict(img_path"),
        ("load_from = 'a.pth'", "load_from='a.pth' is not read: give the weights as CHECKPOINT"),
        ("pipeline.pop()", "must end in dict(type='PackSegInputs')"),
        ("pipeline.insert(2, dict(type='RandomFlip', prob=1.0))", "RandomFlip after LoadAnnotations flips the label"),
        ("test_evaluator = dict(iou_metrics=None)", "test_evaluator must be dict(type='ExactIoUMetric'"),
        ("test_evaluator = dict(iou_metrics=[['mIoU']])", "test_evaluator must be dict(type='ExactIoUMetric'"),
        ("test_evaluator = dict(format_only='yes')", "test_evaluator.format_only must be True or False, got 'yes'"),
        ("test_dataloader['dataset'] = [own]", "needs test_dataloader=dict(dataset=dict(type=...)"),
        ("test_dataloader = None", "needs test_dataloader=dict(dataset=dict(type=...)"),
        ("test_dataloader['dataset']['type'] = 'PascalVOCDataset'", "PascalVOCDataset needs ann_file, a list"),
        ("test_dataloader['dataset'].update(type='PascalVOCDataset', ann_file='')", "take BaseSegDataset for folders"),
        ("own.update(type='PascalVOCDataset', ann_file='img', metainfo=None)", "a check without words failed"),
        ("test_dataloader['dataset']['metainfo'] = dict(palette=[])", "classes` should be specified"),
        ("test_dataloader['dataset']['metainfo'] = dict(classes='sky')", "must be a list of names, got 'sky'"),
        ("test_dataloader['dataset']['metainfo'] = dict(classes=(0, 1, 2))", "must be a list of names, got (0, 1, 2)"),
        ("test_dataloader['dataset'] = dict(type='ConcatDataset')", "ConcatDataset needs datasets"),
        ("test_dataloader['dataset']['metainfo'] = dict(classes=('sky', 'tree', 'sky'))", "2 classes 'sky' (0, 2"),
        ("pipeline.insert(1, dict(type='RandomCrop', crop_size=(0, 1)))", "a check without words failed"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_before_any_work(write: Write, config: str, words: str) -> None:
    options = write(config + "\n")
    assert words in refused(options)
    assert not [path for path in Path("runs").rglob("areas-*.jsonl") if path.stat().st_size]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("img_suffix='.JPEG'", "no file ends in .JPEG (img_suffix) in data/img, which holds 3 files with .jpg"),
        ("seg_map_suffix='_m.png'", "expected files (seg_map_suffix _m.png); data/ann holds 3 files with .png"),
        ("ann_file='empty.txt'", "data/empty.txt (ann_file) names no image"),
        ("ann_file='blank.txt'", "data/blank.txt has 1 blank lines"),
        ("ann_file='marked.txt'", "data/marked.txt starts with a byte order mark"),
        ("ann_file='absolute.txt'", "data/absolute.txt has the line '/a/1', but names are relative to data/img"),
        ("ann_file='zero.txt'", "data/zero.txt holds zero bytes"),
        ("ann_file='other_bytes.txt'", "data/other_bytes.txt is no UTF-8 text"),
        ("ann_file='twice.txt'", "data/img/a/1.jpg stands 2 times in data/twice.txt"),
        ("ann_file='others.txt'", "data/img/x.jpg is not there, nor is any other of the 2 expected files"),
        ("ann_file='val.txt', img_suffix='.png'", "(img_suffix .png); data/img holds 3 files with .jpg, such as a/1."),
        ("data_prefix=dict(img_path='none', seg_map_path='ann')", "in data/none, which holds no file"),
    ],
)
def test_a_list_or_folder_without_its_files_says_what_lies_there(write: Write, setting: str, words: str) -> None:
    options = write(f"test_dataloader['dataset'].update({setting})\n")
    Path("data/none").mkdir()
    lists = {"empty": "", "blank": "a/1\n\n", "marked": "\ufeffa/1\n", "others": "x\ny\n", "val": "a/1\nb/1\n"}
    lists |= {"absolute": "b/1\n/a/1\n", "zero": "a/1\n\0\n", "twice": "a/1\na/../a/1\n"}
    Path("data/other_bytes.txt").write_text("a/1\n", encoding="utf-16")
    for name, text in lists.items():
        Path(f"data/{name}.txt").write_text(text, encoding="utf-8")
    assert words in refused(options)


@pytest.mark.parametrize("config", [f"own['pipeline'] = {UNLABELLED}", "test_evaluator = dict(format_only=True)"])
def test_a_test_set_without_labels_gives_label_maps_and_no_scores(write: Write, config: str) -> None:
    options = write(f"{config}\nown['data_prefix'].pop('seg_map_path')\n")
    assert "give --out FOLDER" in refused(options)
    results = run(changed(options, out="out"))
    assert files("out") == [f"{name}.png" for name in NAMES]
    assert results["metrics"] == {"mIoU": None, "aAcc": None, "mAcc": None} and results["alarms"] == []
    assert set(results["per_class"]) == {"sky", "tree", "road"} and results["expected"] is None
    assert is_finished(changed(options, out="out"))


def test_the_command_line_says_at_its_end_what_came_of_it(write: Write) -> None:
    line, environment = command(ROOT, write(f"own['pipeline'] = {UNLABELLED}\n"), 1, "--out=out")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600, check=True)
    assert done.stderr.strip().splitlines()[-1].startswith("done: no scores, because nothing is labelled")


def test_format_only_needs_no_label_files_and_takes_the_evaluators_folder(write: Write) -> None:
    options = write("test_evaluator = dict(_delete_=True, type='IoUMetric', format_only=True, output_dir='to')\n")
    shutil.rmtree("data/ann")
    run(options)
    assert files("to") == [f"{name}.png" for name in NAMES]


def test_a_pipeline_that_reads_labels_which_there_are_none_of_is_told(write: Write) -> None:
    assert "take LoadAnnotations out" in refused(write("own['data_prefix'].pop('seg_map_path')\n"))


def test_an_evaluator_with_its_scope_before_its_name_is_the_same(write: Write) -> None:
    plain = run(write())
    named = run(write("test_evaluator = dict(_delete_=True, type='mmseg.IoUMetric')\n"))
    assert named["manifest"]["identity"] == plain["manifest"]["identity"]


@pytest.mark.parametrize("evaluator", ["['mIoU', 'mFscore', 'mDice']", "'mFscore'"])
def test_other_measures_stand_beside_ours(write: Write, evaluator: str) -> None:
    plain = run(write())
    results = run(write(f"test_evaluator = dict(iou_metrics={evaluator})\n"))
    assert results["metrics"].items() >= plain["metrics"].items()
    assert results["manifest"]["identity"] == plain["manifest"]["identity"]  # the same areas
    sky = results["per_class"]["sky"]
    assert {"IoU", "Acc", "Fscore", "Precision", "Recall"} <= sky.keys()
    both = sky["Precision"] + sky["Recall"]
    assert sky["Fscore"] == pytest.approx(2 * sky["Precision"] * sky["Recall"] / both)
    means = ("mFscore", "mPrecision", "mRecall")
    per_class = results["per_class"].values()
    assert [results["metrics"][mean] for mean in means] == [
        pytest.approx(np.mean([row[mean[1:]] for row in per_class])) for mean in means
    ]
    assert ("mDice" in results["metrics"]) == ("mDice" in evaluator)


def test_measures_that_are_asked_for_later_come_from_the_areas_that_are_there(write: Write) -> None:
    run(write())
    options = changed(write("test_evaluator = dict(iou_metrics=['mDice'])\n"), resume=True)
    assert not is_finished(options)
    results = run(options)
    assert "mDice" in results["metrics"] and results["manifest"]["time"]["images"] == 0


def test_files_that_a_resumed_run_lacks_are_written(write: Write) -> None:
    options = write()
    run(changed(options, out="out"))
    Path("out/a/1.png").unlink()
    Image.new("L", (20, 12)).save("out/b/1.png")  # of another run
    kept = Path("out/b/2.png").stat().st_mtime_ns
    assert is_finished(options) and not is_finished(changed(options, out="out"))
    again = run(changed(options, out="out", resume=True))
    assert again["manifest"]["time"]["resumed_after"] == 1
    assert files("out") == [f"{name}.png" for name in NAMES] and Path("out/b/2.png").stat().st_mtime_ns == kept
    shown = run(changed(options, show_dir="show", resume=True))
    assert shown["manifest"]["time"]["resumed_after"] == 0 and len(files("show")) == len(NAMES)


def test_more_than_256_classes_are_read_and_written_whole(write: Write) -> None:
    names = [f"n{index}" for index in range(300)]
    maps = {"a": np.full((4, 6), 290, np.uint16), "b": np.arange(255, 279, dtype=np.uint16).reshape(4, 6)}
    options = write(f"own['metainfo'] = dict(classes={names})\nmodel['vocabulary'] = {names}\n", maps)
    assert "give an ignore_index above all classes" in refused(options)
    results = run(changed(options, cfg_options={"test_evaluator.ignore_index": 65535}, out="out"))
    assert results["per_class"]["n290"]["Acc"] is not None and results["per_class"]["n255"]["Acc"] is not None
    assert "labels outside" not in str(results["alarms"])
    with Image.open("out/a.png") as written:
        assert written.mode.startswith("I") and np.asarray(written).max() > 255  # Pillow 10 reads 16 bits as mode I


def test_labels_of_more_than_8_bits_are_no_other_class(write: Write) -> None:
    results = run(write(maps={"a": np.full((4, 6), 257, np.uint16), "b": labels()}))
    assert results["alarms"][0].startswith("1 images, img/a.jpg first, have labels outside 0 to 2")
    assert "the value 257 in its label map; 3 classes" in results["alarms"][0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((4, 6, 3), np.uint8), "3 channels of colour"),
        (np.zeros((4, 6, 4), np.uint8), "4 channels of colour"),
    ],
)
def test_label_maps_of_colours_are_named(write: Write, values: np.ndarray, words: str) -> None:
    sentence = refused(write(maps={"a": values}))
    assert "data/ann/a.png" in sentence and words in sentence and "convert it" in sentence


def test_label_maps_of_other_depths_keep_their_values(write: Write) -> None:
    options = write("own['seg_map_suffix'] = '.tif'\n", {"a": labels(), "b": labels(1)})
    for name, first, kind in (("a", 0, np.int32), ("b", -1, np.int32)):
        values = labels().astype(kind)
        values[0, :2] = first
        Image.fromarray(values).save(f"data/ann/{name}.tif")
    assert "(the value -1 in its label map; 3 classes)" in run(options)["alarms"][0]
    Image.fromarray(labels().astype(np.float32)).save("data/ann/a.tif")
    assert "label map data/ann/a.tif holds numbers of type float32" in refused(options)


def test_a_label_map_of_another_kind_starts_no_program(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    options = write()
    Path("data/ann/a/1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\n")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)
    assert "label map data/ann/a/1.png is EPS, which is not read: save it as PNG" in refused(options)


@pytest.mark.parametrize("backend", ["cv2", "tifffile", "pillow"])
def test_a_palette_image_is_read_by_its_indices_whatever_the_decoder(write: Write, backend: str) -> None:
    plain = run(write(maps={"a": labels()}))
    with Image.open("data/ann/a.png") as image:
        indexed = image.copy()
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save("data/ann/a.png")
    options = write(f"pipeline[1]['imdecode_backend'] = '{backend}'\n", maps={})
    assert run(options)["per_class"] == plain["per_class"]


@pytest.mark.parametrize("size", [(9, 1), (1, 9), (1, 1)])
def test_pictures_one_pixel_wide_are_scored_and_painted(write: Write, size: tuple[int, int]) -> None:
    results = run(changed(write(maps={"a": labels(size=size)}), show_dir="show"))
    assert results["manifest"]["data"]["images"] == 1
    with Image.open("show/a.png") as painted:
        assert painted.size == (2 * size[1], size[0])


@pytest.mark.parametrize("decoder", ["rfclip", "cv2"])
@pytest.mark.parametrize("kind", ["four bands", "12 bits"])
def test_a_painting_shows_what_the_network_saw(write: Write, decoder: str, kind: str) -> None:
    options = write(f"pipeline[0]['imdecode_backend'] = '{decoder}'\nown['img_suffix'] = '.tif'\n", {"a": labels()})
    rgb = np.random.default_rng(3).integers(0, 256, (12, 20, 3), np.uint8)
    samples = np.dstack([rgb, rgb[..., :1]]) if kind == "four bands" else rgb.astype(np.uint16) * 16
    Path("data/img/a.tif").write_bytes(tiff_bytes(samples, extra=[0] if kind == "four bands" else None))
    loader = LoadImageFromFile(imdecode_backend=decoder)
    seen = loader({"img_path": "data/img/a.tif"})["img"][..., ::-1]
    run(changed(options, show_dir="show", cfg_options={"visualizer.alpha": 0.0}))
    with Image.open("show/a.png") as painted:
        np.testing.assert_array_equal(painted, np.hstack([seen, seen]))


def test_masks_of_0_and_255_are_told_from_labels(write: Write) -> None:
    mask = np.zeros((12, 20), np.uint8)
    mask[:3] = 255
    config = "own['metainfo'] = dict(classes=('background', 'cat'))\nmodel['vocabulary'] = ['kennel', 'cat']\n"
    results = run(write(config, {"a": mask}))
    words = "25% of all pixels are ignored (label 255), and with them all of 'cat'"
    assert any(words in sentence and "masks of 0 and 255" in sentence for sentence in results["alarms"])


def test_a_class_in_no_label_map_is_told(write: Write) -> None:
    results = run(write(maps={"a": labels(classes=2)}))
    assert [sentence for sentence in results["alarms"] if "1 class occurs in no label map (road)" in sentence]


@pytest.mark.parametrize(
    "vocabulary",
    [
        ["tree", "sky", "road"],
        ["road", "sky", "tree"],
        [["heaven", "Tree"], ["sky"], "road"],
        ["background", "sky", "tree"],
    ],
)
def test_a_vocabulary_in_another_order_is_refused(write: Write, vocabulary: list[Any]) -> None:
    sentence = refused(write(f"model['vocabulary'] = {vocabulary}\n"))
    assert "write the rows in the data set's order, sky, tree, road" in sentence


@pytest.mark.parametrize("vocabulary", [["heaven", "Tree", "street"], [["sky", "tree top"], "plant", "road"]])
def test_a_vocabulary_of_other_words_is_taken(write: Write, vocabulary: list[Any]) -> None:
    assert run(write(f"model['vocabulary'] = {vocabulary}\n"))["metrics"]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("modle.method.beta", "did you mean model.method.beta?"),
        ("model.methd.beta", "did you mean model.method.beta?"),
        ("model.method.bta", "did you mean model.method.beta?"),
        ("model.clip.pretraind", "did you mean model.clip.pretrained?"),
        ("model.test_cfg.strid", "did you mean model.test_cfg.stride?"),
        ("test_dataloader.batch_sze", "did you mean test_dataloader.batch_size?"),
        ("test_dataloader.dataset.indces", "did you mean test_dataloader.dataset.indices?"),
        ("test_dataloader.dataset.pipeline.1.scal", "did you mean test_dataloader.dataset.pipeline.1.scale?"),
        ("test_dataloader.dataset.pipeline.9.scale", "is a list of 4, so '9' is no entry"),
        ("test_evaluator.ignore_indx", "did you mean test_evaluator.ignore_index?"),
        ("test_dataloader.dataset.data_prefix.img_dir", "nothing reads an entry 'img_dir' in test_dataloader.dataset"),
        ("test_dataloader.dataset.metainfo.clases", "did you mean test_dataloader.dataset.metainfo.classes?"),
        ("env_cfg.cudnn_benchmrk", "did you mean env_cfg.cudnn_benchmark?"),
        ("anything", "nothing reads an entry 'anything'"),
        ("work_dir", "give --work-dir"),
    ],
)
def test_a_key_that_nothing_reads_is_refused_with_the_one_that_is_near(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"--cfg-options|is a list") as caught:
        build_config(Options(ROOT / "configs/rfclip/rfclip_vit-b16_cityscapes.py", cfg_options={key: 1}))
    assert words in str(caught.value)


def test_a_key_in_a_dict_is_looked_at_too() -> None:
    with pytest.raises(ValueError, match=r"did you mean model\.method\.beta\?"):
        build_config(Options(ROOT / "configs/rfclip/rfclip_vit-b16_voc21.py", cfg_options={"model.method": {"bta": 1}}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("env_cfg.dist_cfg.timeout", 9),
        ("randomness.seed", 0),
        ("default_hooks.visualization", {"type": "SegVisualizationHook"}),
        ("default_hooks.logger.interval", 5),
        ("custom_hooks", []),
        ("log_level", "ERROR"),
        ("model.method", {"type": "ClearCLIP", "_delete_": True}),
        ("model.clip.quick_gelu", True),
        ("model.keep_seg_logits", True),
        ("model.prior", None),
        ("model.prior.scope", "window"),
        ("model.refiner.num_iter", 3),
        ("test_dataloader.dataset.metainfo.classes", ("a",)),
        ("test_dataloader.dataset.seg_map_suffix", ".tif"),
        ("test_dataloader.dataset.indices", 2),
        ("test_evaluator.iou_metrics", ["mFscore"]),
        ("test_evaluator.beta", 2.0),
        ("visualizer.alpha", 0.5),
    ],
)
def test_new_entries_that_are_read_stay_possible(key: str, value: object) -> None:
    config = ROOT / "configs/rfclip/rfclip_vit-b16_voc21.py"
    assert build_config(Options(config, cfg_options={key: value})).benchmark == "voc21"


def test_a_misspelt_entry_of_a_config_file_is_warned_of(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("rfclip.benchmarks.config_keys.print_log", lambda text, *_: said.append(text))
    build_config(write("test_evalutor = dict(ignore_index=0)\ntrain_pipeline = []\n"))
    assert said == ["nothing reads the config's entry 'test_evalutor': did you mean test_evaluator?"]


def test_pictures_with_another_spelling_of_the_suffix_are_told(write: Write) -> None:
    options = write()
    shutil.copy("data/img/b/2.jpg", "data/img/b/3.JPG")
    found = run(options)["alarms"]
    assert found[0].startswith("1 files in img are not read, such as b/3.JPG: img_suffix is .jpg")


def test_a_variable_of_the_config_file_is_no_entry(write: Write) -> None:
    assert "it is a variable of the config file" in refused(write(), cfg_options={"pipeline.0.type": "x"})


def test_results_of_a_run_without_labels_are_plain_json_and_no_score_in_a_table(write: Write) -> None:
    run(changed(write(f"own['pipeline'] = {UNLABELLED}\n"), out="out"))
    (row,) = table(read_results(Path("runs")))
    assert row["mIoU"] is None and "no labels" in row["note"]
    assert json.loads(Path("runs/own/results.json").read_text())["per_class"]["sky"] == {"IoU": None, "Acc": None}
