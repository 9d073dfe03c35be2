"""What mmseg and mmengine expect of a segmentor: flipped views, life inside other models, scopes, precisions."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner, autocast
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

import rfclip
from rfclip import calibrate, segmentor
from rfclip.methods import MeanKK
from rfclip.segmentor import RFCLIP

WORDS = [["background", "wall"], ["cat"], ["dog", "puppy"]]
SLIDE = {"mode": "slide", "crop_size": 64, "stride": 32, "window_batch": 3}
PRIOR = {"image_weight": 0.2, "mean_vector_weight": 0.05, "cluster_threshold": 0.3}
PAMR = {"type": "PAMR", "num_iter": 2, "dilations": (1, 2)}
FLIPS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


@pytest.fixture
def settings(clip_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The config of an RFCLIP on the random CLIP."""
    monkeypatch.setenv("RFCLIP_CACHE", str(tmp_path / "cache"))
    return {
        "type": "mmseg.RFCLIP",
        "clip": clip_files,
        "vocabulary": WORDS,
        "method": {"type": "RefocusCLIP", "distraction_dims": [5, 23]},
        "templates": ["a {}."],
    }


@pytest.fixture
def build(settings: dict[str, Any]) -> Callable[..., RFCLIP]:
    """build(**changes) -> RFCLIP."""
    return lambda **changes: MODELS.build({**settings, **changes}).eval()


def flipped(direction: str | None, **meta: Any) -> SegDataSample:
    return SegDataSample(metainfo={"flip": direction is not None, "flip_direction": direction, **meta})


@pytest.mark.parametrize("direction", FLIPS)
@pytest.mark.parametrize("changes", [{}, {"refiner": PAMR, "prior": PRIOR, "test_cfg": SLIDE}])
def test_the_result_of_a_flipped_view_is_upright(build, make_images, direction: str, changes: dict[str, Any]) -> None:
    model = build(**changes)
    view = make_images(1, 80, 112)
    as_seen = model.predict(view, [SegDataSample(metainfo={"ori_shape": (50, 70)})])[0]
    upright = model.predict(view, [flipped(direction, ori_shape=(50, 70, 3))])[0]
    expected = as_seen.seg_logits.data.flip(FLIPS[direction])
    torch.testing.assert_close(upright.seg_logits.data, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(upright.pred_sem_seg.data[0], upright.seg_logits.data.argmax(0))


@pytest.mark.parametrize("key", ["padding_size", "img_padding_size"])
def test_padding_is_cut_off_before_a_view_is_flipped_back(build, make_images, key: str) -> None:
    model = build()
    view = make_images(1, 80, 112)
    padded = nn.functional.pad(view, (0, 32, 16, 0), value=7.0)
    alone = model.predict(view, [flipped("horizontal")])[0]
    found = model.predict(padded, [flipped("horizontal", **{key: (0, 32, 16, 0)})])[0]
    assert torch.equal(found.seg_logits.data, alone.seg_logits.data)


def test_padding_of_the_pipeline_and_of_the_batch_add_up(build) -> None:
    model = build()
    rng = np.random.default_rng(0)
    small, large = (torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in ((80, 64), (112, 128)))
    padded = nn.functional.pad(small, (16, 0, 0, 0))
    samples = [flipped("vertical", padding_size=(16, 0, 0, 0)), flipped(None)]
    found = model.test_step({"inputs": [padded, large], "data_samples": samples})
    for image, sample, result in zip((small, large), (flipped("vertical"), flipped(None)), found, strict=True):
        alone = model.test_step({"inputs": [image], "data_samples": [sample]})[0]
        torch.testing.assert_close(result.seg_logits.data, alone.seg_logits.data, rtol=1e-4, atol=1e-5)


def test_images_of_different_sizes_without_samples_keep_their_sizes(build) -> None:
    found = build().test_step({"inputs": [torch.zeros(3, 80, 64), torch.zeros(3, 64, 96)]})
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in found] == [(1, 80, 64), (1, 64, 96)]


def test_views_of_one_batch_are_flipped_each_its_own_way(build, make_images) -> None:
    model = build()
    views = make_images(4, 80, 112)
    directions = [None, "vertical", "horizontal", "diagonal"]
    together = model.predict(views, [flipped(direction) for direction in directions])
    for view, direction, result in zip(views, directions, together, strict=True):
        alone = model.predict(view[None], [flipped(direction)])[0]
        torch.testing.assert_close(result.seg_logits.data, alone.seg_logits.data, rtol=1e-4, atol=1e-5)


def test_a_direction_counts_only_if_the_view_is_flipped(build, make_images) -> None:
    model, images = build(), make_images(1, 80, 112)
    sample = SegDataSample(metainfo={"flip": False, "flip_direction": "vertical"})
    assert torch.equal(model.predict(images, [sample])[0].pred_sem_seg.data, model.predict(images)[0].pred_sem_seg.data)


@pytest.mark.parametrize("direction", ["up", None, ["horizontal"]])
def test_an_unknown_direction_is_told_before_any_work(build, make_images, monkeypatch, direction: object) -> None:
    model = build()
    monkeypatch.setattr(model, "encode", None)
    sample = SegDataSample(metainfo={"flip": True, "flip_direction": direction})
    with pytest.raises(ValueError, match="flip_direction of a sample with flip=True must be one of 'horizontal'"):
        model.predict(make_images(1, 64, 64), [sample])


def views_of(image: Tensor) -> dict[str, Any]:
    """A batch of one image in two views, as TestTimeAug gives it."""
    samples = [flipped(None, img_path="a.png"), flipped("horizontal", img_path="a.png")]
    return {"inputs": [[image], [image.flip(-1)]], "data_samples": [[sample] for sample in samples]}


@pytest.mark.filterwarnings("ignore:The shape of value will convert from:UserWarning")  # mmseg's merge
def test_test_time_augmentation_is_the_mean_softmax_of_the_probabilities(settings, build) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 80, 112), np.uint8))
    data = views_of(image)
    merged = MODELS.build({"type": "SegTTAModel", "module": settings}).test_step(data)[0].pred_sem_seg.data[0]
    model = build()
    views = [
        model.test_step({"inputs": inputs, "data_samples": samples})[0].seg_logits.data
        for inputs, samples in zip(data["inputs"], data["data_samples"], strict=True)
    ]
    assert torch.equal(merged, torch.stack([view.softmax(0) for view in views]).mean(0).argmax(0))
    assert len(merged.unique()) > 1


@pytest.mark.filterwarnings("ignore:The shape of value will convert from:UserWarning")
def test_test_time_augmentation_with_one_class(settings) -> None:
    model = MODELS.build({"type": "SegTTAModel", "module": {**settings, "vocabulary": ["cat"]}})
    assert not model.test_step(views_of(torch.zeros(3, 64, 64)))[0].pred_sem_seg.data.any()


def test_test_time_augmentation_without_probabilities_is_a_sentence(settings) -> None:
    model = MODELS.build({"type": "SegTTAModel", "module": {**settings, "keep_seg_logits": False}})
    with pytest.raises(AttributeError, match="keep_seg_logits=True"):
        model.test_step(views_of(torch.zeros(3, 64, 64)))


def test_probabilities_of_another_model_do_not_stay_beside_new_labels(build, make_images) -> None:
    images = make_images(1, 64, 64)
    samples = build().predict(images, [SegDataSample()])
    assert samples[0].seg_logits.data.shape == (3, 64, 64)
    (sample,) = build(keep_seg_logits=False, vocabulary=["cat", "dog"]).predict(images, samples)
    assert not hasattr(sample, "seg_logits")
    assert isinstance(pickle.loads(pickle.dumps(sample)), SegDataSample)
    (sample,) = build().predict(images, samples)
    assert sample.seg_logits.data.shape == (3, 64, 64)


@pytest.mark.filterwarnings("ignore:The shape of value will convert from:UserWarning")
def test_a_runner_tests_with_resized_and_flipped_views(settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, size in (("images", (50, 80, 3)), ("labels", (50, 80))):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(rng.integers(0, 3, size, np.uint8)).save(tmp_path / folder / f"{name}.png")
    augmented = {
        "type": "TestTimeAug",
        "transforms": [
            [{"type": "Resize", "scale_factor": ratio, "keep_ratio": True} for ratio in (1.0, 1.5)],
            [
                {"type": "RandomFlip", "prob": 0.0, "direction": "horizontal"},
                {"type": "RandomFlip", "prob": 1.0, "direction": "horizontal"},
                {"type": "RandomFlip", "prob": 1.0, "direction": "vertical"},
            ],
            [{"type": "LoadAnnotations"}],
            [{"type": "PackSegInputs"}],
        ],
    }
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": ("background", "cat", "dog")},
        "pipeline": [{"type": "LoadImageFromFile"}, augmented],
        "test_mode": True,
    }
    cfg = Config(
        {
            "default_scope": "mmseg",
            "work_dir": str(tmp_path / "work"),
            "model": {"type": "SegTTAModel", "module": settings},
            "test_dataloader": {
                "batch_size": 2,
                "dataset": dataset,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
            },
            "test_cfg": {"type": "TestLoop", "fp16": True},
            "test_evaluator": {"type": "ExactIoUMetric"},
            "experiment_name": f"tta-{tmp_path.name}",
        }
    )
    metrics = Runner.from_cfg(cfg).test()
    assert 0 < metrics["mIoU"] < 100


class Student(BaseModule):
    """A model that learns from a frozen RFCLIP."""

    def __init__(self, settings: dict[str, Any], init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.teacher = MODELS.build(settings)
        self.net = nn.Conv2d(3, 2, 1)


def tower_of(model: RFCLIP) -> list[Tensor]:
    return [value.clone() for value in model.clip.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


NET = ["net.weight", "net.bias"]


@pytest.mark.parametrize("collect", [nn.Module.state_dict, get_state_dict])
@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: nn.Sequential(nn.Sequential(model))])
def test_no_checkpoint_of_another_model_holds_the_tower(settings, collect, wrap) -> None:
    names = list(collect(wrap(Student(settings))))
    assert [name.removeprefix("0.0.") for name in names] == NET


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
@pytest.mark.parametrize("assign", [False, True])
def test_a_model_around_it_loads_its_own_checkpoint(settings, load, assign: bool, make_images) -> None:
    student, images = Student(settings), make_images(1, 64, 64)
    before = student.teacher.predict(images)[0].seg_logits.data
    state = {name: torch.full_like(value, 0.5) for name, value in student.state_dict().items()}
    extra = {"assign": True} if assign and load is nn.Module.load_state_dict else {}
    load(student, state, strict=True, **extra)
    assert (student.net.weight == 0.5).all()
    assert torch.equal(student.teacher.predict(images)[0].seg_logits.data, before)


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
def test_entries_of_an_older_checkpoint_are_not_loaded_into_it(settings, load, monkeypatch) -> None:
    student, lines = Student(settings), []
    monkeypatch.setattr(segmentor, "print_log", lambda message, *_: lines.append(message))
    before = tower_of(student.teacher)
    state = student.state_dict()
    state["teacher.clip.logit_scale"] = torch.zeros(())
    state["teacher.clip.visual.of_another_architecture"] = torch.zeros(3)
    load(student, state, strict=True)
    assert same(tower_of(student.teacher), before)
    assert len(lines) == 1
    assert lines[0].startswith("2 entries teacher.clip.* are not loaded. Weights come only through `clip`")


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
def test_what_a_model_around_it_misses_is_still_told(settings, load) -> None:
    student = Student(settings)
    with pytest.raises(RuntimeError, match=r"net\.bias"):
        load(student, {"net.weight": student.net.weight}, strict=True)
    with pytest.raises(RuntimeError, match=r"teacher\.colour"):
        load(student, {**student.state_dict(), "teacher.colour": torch.zeros(1)}, strict=True)


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_meant_for_itself_is_refused(build, load, strict: bool) -> None:
    model = build()
    for state in (model.clip.state_dict(prefix="clip."), {"a": torch.zeros(1)}):
        with pytest.raises(RuntimeError, match=r"clip\.pretrained only"):
            load(model, state, strict=strict)
    assert len(model.state_dict()) == 0
    load(model, model.state_dict(), strict=True)


def test_a_checkpoint_for_its_test_time_augmentation_is_refused(settings) -> None:
    model = MODELS.build({"type": "SegTTAModel", "module": settings})
    with pytest.raises(RuntimeError, match=r"clip\.pretrained only"):
        load_state_dict(model, {"a": torch.zeros(1)})


@pytest.mark.parametrize("update_buffers", [False, True])
def test_a_moving_average_of_a_model_around_it(settings, update_buffers: bool) -> None:
    student = Student(settings)
    before = tower_of(student.teacher)
    average = ExponentialMovingAverage(student, momentum=0.5, update_buffers=update_buffers)
    average.update_parameters(student)
    with torch.no_grad():
        student.net.weight += 1
    average.update_parameters(student)
    torch.testing.assert_close(average.module.net.weight, student.net.weight - 0.5)
    assert same(tower_of(average.module.teacher), before)
    assert not any("clip" in name for name in average.state_dict())
    average.load_state_dict(average.state_dict())


def test_initialisers_of_a_model_around_it_do_not_reach_the_tower(settings) -> None:
    student = Student(settings, {"type": "Constant", "layer": ["Linear", "Conv2d"], "val": 0.25})
    before = tower_of(student.teacher)
    student.init_weights()
    assert (student.net.weight == 0.25).all()
    assert same(tower_of(student.teacher), before)


def test_training_a_model_around_it_leaves_the_tower_in_evaluation(settings) -> None:
    student = Student(settings).train()
    assert student.net.training
    assert not any(module.training for module in student.teacher.clip.modules())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_work_alike(settings, make_images, duplicate) -> None:
    student, images = Student(settings), make_images(1, 64, 64)
    other = duplicate(student)
    expected = student.teacher.predict(images)[0].seg_logits.data
    assert torch.equal(other.to("cpu").teacher.predict(images)[0].seg_logits.data, expected)
    assert list(other.state_dict()) == NET
    other.load_state_dict(student.state_dict())


def test_a_checkpoint_goes_through_a_file(settings) -> None:
    student, file = Student(settings), io.BytesIO()
    torch.save(get_state_dict(student), file)
    file.seek(0)
    assert str(student.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"


CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "double": lambda model: model.double(),
    "to": lambda model: model.to(torch.float16),
    "to device": lambda model: model.to("cpu", torch.float64),
    "type": lambda model: model.type(torch.bfloat16),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential])
def test_casts_name_the_setting(build, make_images, cast: str, wrap) -> None:
    model, images = build(), make_images(1, 64, 64)
    before = model.predict(images)[0].seg_logits.data
    with pytest.raises(ValueError, match=r"alone or inside another model, must be torch\.float32.*clip\.precision"):
        CASTS[cast](wrap(model))
    assert torch.equal(model.float().to("cpu").predict(images)[0].seg_logits.data, before)


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    """Set torch's default dtype for one test."""
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_dtype_names_the_setting(settings, build, make_images, default_dtype, dtype) -> None:
    model, images = build(), make_images(1, 64, 64)
    segmenter = rfclip.OpenVocabSegmenter(**settings["clip"], device="cpu", method=settings["method"])
    calls = [
        build,
        lambda: rfclip.OpenVocabSegmenter("tiny", device="cpu"),
        lambda: model.predict(images),
        lambda: model(images, mode="tensor"),
        lambda: rfclip.encode_dense(model, images),
        lambda: segmenter(np.zeros((40, 60, 3), np.uint8), ["cat", "dog"]),
    ]
    default_dtype(dtype)
    for call in calls:
        with pytest.raises(ValueError, match=r"default dtype must be torch\.float32.*clip\.precision"):
            call()


AUTOCASTS = [lambda: torch.autocast("cpu", torch.bfloat16), lambda: autocast("cpu", enabled=True)]


@pytest.mark.parametrize("outer", AUTOCASTS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["RefocusCLIP", "RefocusCLIPRelease", "MeanKK"])
def test_an_autocast_around_it_changes_nothing(settings, build, make_images, outer, precision: str, method) -> None:
    changes = {"clip": {**settings["clip"], "precision": precision}, "prior": PRIOR, "refiner": PAMR}
    changes |= {"method": {"type": method, **({} if method == "MeanKK" else {"distraction_dims": [5, 23]})}}
    model, images = build(**changes, test_cfg=SLIDE), make_images(2, 70, 96)
    samples, dense, cosines = model.predict(images), rfclip.encode_dense(model, images), model(images, mode="tensor")
    with outer():
        built_inside = build(**changes, test_cfg=SLIDE)
        again, dense_again = model.predict(images), rfclip.encode_dense(model, images)
        cosines_again = model(images, mode="tensor")
        features = model.extract_feat(images)
    for one, other in zip(samples, [*again], strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    assert torch.equal(dense.patches, dense_again.patches)
    assert torch.equal(dense.image, dense_again.image)
    assert torch.equal(cosines, cosines_again)
    assert torch.equal(features, model.extract_feat(images))
    assert torch.equal(built_inside.predict(images)[0].seg_logits.data, samples[0].seg_logits.data)
    assert torch.equal(built_inside.clusters, model.clusters)


def test_an_autocast_around_the_segmenter_changes_nothing(settings) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    arguments = {**settings["clip"], "device": "cpu", "method": settings["method"], "prior": PRIOR, "refiner": PAMR}
    expected = rfclip.OpenVocabSegmenter(**arguments)(picture, ["cat", "dog", "grass"]).probs
    with torch.autocast("cpu", torch.bfloat16):
        found = rfclip.OpenVocabSegmenter(**arguments)(picture, ["cat", "dog", "grass"]).probs
    assert expected is not None
    assert np.array_equal(expected, found)


def test_an_autocast_around_calibration_changes_nothing(planted, make_images) -> None:
    images = make_images(2, 80, 112)
    expected = calibrate.measure(planted.vit, [images])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(calibrate.measure(planted.vit, [images]).profile, expected.profile)


OWN = Registry("model", parent=ROOT, scope="a_project_of_mine")
OWN.register_module(name="MyMethod", module=MeanKK)


@pytest.fixture(params=["mmengine", "mmpretrain", "mmdet", "a_project_of_mine", "mmseg"])
def scope(request: pytest.FixtureRequest) -> Iterator[str]:
    """A default scope, which a test is to leave as it is."""
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param
        assert DefaultScope.get_current_instance().scope_name == request.param


@pytest.mark.parametrize("prefix", ["", "mmseg."])
def test_its_parts_are_found_whatever_the_default_scope(settings, scope: str, make_images, prefix: str) -> None:
    changes = {
        "method": {**settings["method"], "type": f"{prefix}RefocusCLIP"},
        "refiner": {**PAMR, "type": f"{prefix}PAMR"},
        "data_preprocessor": {"type": f"{prefix}PaddingPreProcessor", "bgr_to_rgb": True},
    }
    model = ROOT.build({**settings, **changes})
    assert model.predict(make_images(1, 64, 64))[0].pred_sem_seg.data.shape == (1, 64, 64)


def test_the_default_parts_are_found_whatever_the_default_scope(settings, scope: str) -> None:
    model = ROOT.build(settings)
    assert type(model.data_preprocessor).__name__ == "PaddingPreProcessor"
    segmenter = rfclip.OpenVocabSegmenter(**settings["clip"], device="cpu", method={"type": "MeanKK"}, refiner=PAMR)
    assert segmenter.changed({"type": "SCLIP"}, 0.0, None)(np.zeros((40, 60, 3), np.uint8), ["cat"]).labels.max() == 0


def test_a_method_of_another_registry_is_found_by_its_prefix(settings, scope: str) -> None:
    model = ROOT.build({**settings, "method": {"type": "a_project_of_mine.MyMethod"}})
    assert isinstance(model.method, MeanKK)


def test_an_unknown_method_is_a_sentence_whatever_the_default_scope(settings, scope: str) -> None:
    for what in ("method", "refiner", "data_preprocessor"):
        for kind in ("Refocus", "nowhere.MeanKK", "mmseg.Refocus"):
            with pytest.raises(ValueError, match=f"{what}.type '{kind}' is not registered"):
                ROOT.build({**settings, what: {"type": kind}})
