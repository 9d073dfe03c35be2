"""Names of architectures, whatever way they were asked for."""

import open_clip
import pytest
import torch
from open_clip import pretrained
from open_clip.model import CLIP, CLIPTextCfg

from rfclip.clip import architecture as A
from rfclip.clip.weights import WeightsError


def tower(name):
    """The image tower of an open_clip model, without memory for weights."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        return CLIP(config["embed_dim"], config["vision_cfg"], CLIPTextCfg(layers=1)).visual


def unless_in_open_clip(name):
    """A mark for models of open_clip's later releases."""
    return pytest.mark.skipif(open_clip.get_model_config(name) is None, reason=f"this open_clip has no {name}")


@pytest.mark.parametrize(
    ("asked", "canonical"),
    [
        ("ViT-B-16", "ViT-B-16"),
        ("ViT-B-16-quickgelu", "ViT-B-16"),
        ("ViT-B-32", "ViT-B-32"),
        ("roberta-ViT-B-32", "ViT-B-32"),
        ("ViT-L-14", "ViT-L-14"),
        ("ViT-L-14-336", "ViT-L-14-336"),
        ("ViT-L-14-336-quickgelu", "ViT-L-14-336"),
        ("ViT-H-14", "ViT-H-14"),
        pytest.param("ViT-H-14-worldwide", "ViT-H-14", marks=unless_in_open_clip("ViT-H-14-worldwide")),
        ("ViT-bigG-14", "ViT-bigG-14"),
    ],
)
def test_canonical_names(asked, canonical):
    assert A.canonical_name(tower(asked)) == canonical


def test_sizes_without_a_name(tiny_vit):
    assert A.canonical_name(tiny_vit) == "ViT-64x4-16-80x112"


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336"])
def test_openai_architectures_are_read_off_the_shapes(name):
    with torch.device("meta"):
        clip = CLIP(**open_clip.get_model_config(name))
    config = A.config_from_shapes(clip.state_dict(), "file")
    with torch.device("meta"):
        again = A.build(config, True, "auto")
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in clip.state_dict().items()}
    assert A.canonical_name(again.visual) == name
    assert config["vision_cfg"]["image_size"] == open_clip.get_model_config(name)["vision_cfg"]["image_size"]


def test_other_ratios_of_the_mlp_are_read_off_the_shapes(make_clip):
    clip = make_clip(mlp_ratio=2.5)
    assert A.config_from_shapes(clip.state_dict(), "file")["vision_cfg"]["mlp_ratio"] == 2.5


def test_a_grid_that_is_not_square_cannot_be_read_off_the_shapes(make_clip):
    with pytest.raises(WeightsError, match="15 positional embeddings make no square grid"):
        A.config_from_shapes(make_clip(image_size=(48, 80)).state_dict(), "file")


def test_every_model_of_open_clip_passes_the_checks_of_values():
    for name in open_clip.list_models():
        A._check_values(open_clip.get_model_config(name))
    tags = [tag for tags in pretrained._PRETRAINED.values() for tag in tags.values()]
    for tag in tags:
        A.check_preprocess(tag, "a tag")
    assert len(tags) > 100


@pytest.mark.parametrize(
    ("name", "published"), [("ViT-B-16", True), ("ViT-L-14-336", True), ("ViT-H-14", False), ("RN50", False)]
)
def test_image_towers_that_openai_published(name, published):
    assert A.is_published_by_openai(open_clip.get_model_config(name)) is published


def test_named_config_is_a_copy():
    A.named_config("ViT-B-16")["embed_dim"] = 1
    assert A.named_config("ViT-B/16")["embed_dim"] == 512
