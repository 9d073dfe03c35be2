"""Plots of small arrays: what is drawn is what was given, on one scale before and after."""

import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from rfclip.analysis import audit_charts, charts
from rfclip.explain import plots, style

H, W, LAYERS = 3, 5, (0, 2)
N = H * W
PLANTED = 7
RNG = np.random.default_rng(0)
BEFORE = RNG.uniform(0.5, 1.5, (2, N)) / N
BEFORE[:, PLANTED] = 8 / N
AFTER = BEFORE.copy()
AFTER[:, PLANTED] *= 0.3
DISTRACTORS = np.zeros((2, N), bool)
DISTRACTORS[:, PLANTED] = True
IMAGE = RNG.integers(0, 255, (48, 80, 3), dtype=np.uint8)


def images_of(figure):
    return [image for axis in figure.axes for image in axis.images]


def texts_of(figure):
    found = [figure.get_suptitle(), *(text.get_text() for text in figure.texts)]
    for axis in figure.axes:
        found += [axis.get_title(), axis.get_title("left"), axis.get_xlabel(), axis.get_ylabel()]
    return [text for text in found if text]


def test_stripes_show_the_planted_distractor_on_one_scale():
    figure = plots.stripes(BEFORE, AFTER, DISTRACTORS, LAYERS)
    before, after = images_of(figure)[:2]
    np.testing.assert_allclose(before.get_array(), BEFORE * N)
    np.testing.assert_allclose(after.get_array(), AFTER * N)
    assert before.norm is after.norm
    brightness = before.to_rgba(before.get_array())[..., :3].sum(-1)
    assert (brightness.argmax(1) == PLANTED).all()
    assert {"before redistribution", "after redistribution"} <= set(texts_of(figure))
    marks = figure.axes[0].lines[0]
    assert marks.get_xdata().tolist() == [PLANTED]


def test_point_attention_draws_every_layer_before_and_after():
    figure = plots.point_attention(BEFORE, AFTER, (H, W), (1, 2), LAYERS, IMAGE)
    drawn = [image for image in images_of(figure) if image.get_array().shape == (H, W)]
    expected = [BEFORE[0], BEFORE[1], AFTER[0], AFTER[1]]
    for image, values in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(image.get_array().ravel(), values * N)
    assert len({id(image.norm) for image in drawn}) == 1
    assert {"block 0, before", "block 2, after", style.EVEN_SHARE} <= set(texts_of(figure))


def test_without_redistribution_there_is_one_row():
    figure = plots.point_attention(BEFORE, None, (H, W), (0, 0), LAYERS, IMAGE)
    assert {"block 0", "block 2"} <= set(texts_of(figure))
    assert len(images_of(plots.stripes(BEFORE, None, DISTRACTORS, LAYERS))) == 1


def test_attention_matrix():
    matrix = RNG.random((N, N))
    figure = plots.attention_matrix(matrix, matrix / 2, DISTRACTORS[0], 1)
    before, after = images_of(figure)[:2]
    np.testing.assert_allclose(after.get_array() * 2, before.get_array())
    assert before.norm is after.norm
    assert "block 1" in figure.get_suptitle()


@pytest.mark.parametrize("after", [AFTER, None])
def test_figures_without_any_distractor_can_be_laid_out(after):
    """Saving warns, which is an error here, where a layout collapses."""
    nobody = np.zeros_like(DISTRACTORS)
    style.png_bytes(plots.stripes(BEFORE, after, nobody, LAYERS))
    matrix = RNG.random((N, N))
    style.png_bytes(plots.attention_matrix(matrix, None if after is None else matrix, nobody[0], 0))


def test_distraction_maps_change_colour_at_the_threshold():
    ratio = np.array([[0.0, 0.5, 1.0, 2.0, 4.0, 1.5]])
    figure = plots.distraction_maps(ratio, (2, 3), ["input"])
    (drawn,) = [image for image in images_of(figure) if image.get_array().shape == (2, 3)]
    assert drawn.norm(1.0) == 0.5 and drawn.norm(0.0) == 0 and drawn.norm(4.0) == 1
    assert "input: 3" in texts_of(figure)


def test_distraction_maps_without_any_distraction():
    figure = plots.distraction_maps(np.zeros((2, N)), (H, W), ["a", "b"])
    assert {"a: 0", "b: 0"} <= set(texts_of(figure))
    assert style.png_bytes(figure)


def test_partition_has_a_colour_per_role():
    defocus = np.zeros((1, N), bool)
    defocus[0, 0] = True
    figure = plots.defocus_partition(defocus, DISTRACTORS[:1], (H, W), [3])
    (drawn,) = images_of(figure)
    rgb = drawn.to_rgba(drawn.get_array(), bytes=True).reshape(N, 4)
    colours = [tuple(rgb[i, :3]) for i in (0, PLANTED, 1)]
    expected = [style.BLUE, style.ORANGE, "#cccccc"]
    assert ["#{:02X}{:02X}{:02X}".format(*colour) for colour in colours] == [c.upper() for c in expected]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["other", "defocused: receives", "distractor: gives"]


def test_budget_writes_what_was_moved():
    figure = plots.budget(np.array([0.2, 0.1]), np.array([0.06, 0.03]), LAYERS)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["14.0", "7.0"]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([20, 10, 6, 3])


def test_similarity_maps_share_a_scale():
    similarity = RNG.random((7, H, W))
    figure = plots.similarity_maps(similarity, [f"class {i}" for i in range(7)], IMAGE)
    drawn = [image for image in images_of(figure) if image.get_array().shape == (H, W)]
    assert len(drawn) == 7
    assert {(image.norm.vmin, image.norm.vmax) for image in drawn} == {(similarity.min(), similarity.max())}


def test_labels_show_the_difference():
    without = np.zeros((48, 80), np.int64)
    with_ = without.copy()
    with_[:12] = 2
    colours = [(0, 0, 0), (9, 9, 9), (250, 10, 20)]
    figure = plots.labels(IMAGE, without, with_, ["a", "b", "c" * 40], colours, ("MeanKK", "RefocusCLIP"))
    difference = images_of(figure)[3].get_array()
    assert (difference[:12] == colours[2]).all()
    assert (difference[12:] == style.on_grey(IMAGE)[12:]).all()
    assert {"without: MeanKK", "with: RefocusCLIP", "changed: 25.0 % of the pixels"} <= set(texts_of(figure))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "c" * 23 + "…"]


def test_a_dollar_in_a_name_is_no_mathematics():
    names = [r"$\frac$", "$x_1$", r"5\$ and 6\$"]
    similarity, zeros = RNG.random((3, H, W)), np.zeros((48, 80), np.int64)
    zeros[0, :3] = range(3)
    scores = {name: np.arange(3.0) for name in names}
    for figure in (
        plots.similarity_maps(similarity, names, IMAGE),
        plots.labels(IMAGE, zeros, zeros, names, [(9, 9, 9)] * 3, ("MeanKK", "RefocusCLIP")),
        charts.agreement_matrix(names, [1, 2, 3], np.eye(3), "title"),
        audit_charts.vocabulary_audit(scores, [1.0, 2.0, 3.0], names, names, np.arange(3.0), "title"),
    ):
        assert style.png_bytes(figure)
        drawn = [text.get_text() for text in figure.findobj(Text) if "$" in text.get_text()]
        assert {text.replace(r"\$", "$").removesuffix(" (1)") for text in drawn} >= {names[0]}
        assert not any(is_math_text(text) for text in drawn)


@pytest.mark.parametrize("layers", [1, 6, 13])
def test_any_number_of_layers_and_any_shape_can_be_saved(layers, tmp_path):
    values = RNG.random((layers, 12))
    figure = plots.point_attention(values, values, (12, 1), (3, 0), range(layers), IMAGE)
    path = style.save(figure, tmp_path / "new" / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_arguments_are_not_modified():
    before, image = BEFORE.copy(), IMAGE.copy()
    plots.point_attention(BEFORE, AFTER, (H, W), (1, 2), LAYERS, IMAGE)
    plots.stripes(BEFORE, AFTER, DISTRACTORS, LAYERS)
    assert (before == BEFORE).all() and (image == IMAGE).all()


def test_the_same_figure_gives_the_same_bytes():
    first, second = (style.png_bytes(plots.budget(BEFORE[:, 0], AFTER[:, 0], LAYERS)) for _ in range(2))
    assert first == second
