"""RFCLIP as a frozen part of another model, and under another default scope."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, Registry
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmseg.registry import MODELS
from torch import Tensor, nn

import rfclip
from rfclip.methods import MeanKK
from rfclip.plugin import segmentor
from rfclip.plugin.segmentor import RFCLIP

PAMR = {"type": "PAMR", "num_iter": 2, "dilations": (1, 2)}


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
