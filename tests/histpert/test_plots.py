"""Panels and scatters as they lie on the page: nothing hidden, no name on another one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from histpert.plots import Histogram, HistogramPanel, histogram_panels, shift_scatter, split_differences


def panel_of(*rows):
    names = ("control", "observed", "predicted")
    masses = [np.array([first, *(1 - first) * np.array(rest)]) for first, rest in rows]
    return HistogramPanel("A", {n: Histogram(m, 1.0) for n, m in zip(names, masses, strict=True)}, -0.5, 1.0)


def drawn(panel):
    figure = Figure(figsize=(3, 2), layout="constrained")
    histogram_panels(figure, [panel], 1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure.axes[0]


def height(axes, share):
    """Of a share on the axis, from 0 to 1."""
    return axes.transAxes.inverted().transform(axes.transData.transform((0, share)))[1]


BELL = [0.1, 0.2, 0.4, 0.2, 0.1]


@pytest.mark.parametrize("zeros", [(0.6, 0.55, 0.62), (0.97, 0.5, 0.6), (0.99, 0.98, 0.985)])
def test_what_is_not_zero_fills_the_panel_however_many_zeros_there_are(zeros):
    axes = drawn(panel_of(*((zero, BELL) for zero in zeros)))
    assert height(axes, 0) == pytest.approx(0)
    assert 0.5 < height(axes, 0.4 * (1 - min(zeros))) < 0.7
    tops = [height(axes, zero) for zero in sorted(zeros)]
    assert tops[0] > 0.7  # above the break
    assert tops[-1] < 1
    assert min(np.diff(tops)) > 0.02


def test_an_axis_is_not_broken_where_all_can_be_seen():
    axes = drawn(panel_of((0.1, BELL), (0.3, BELL), (0.2, BELL)))
    shares = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(np.diff([height(axes, share) for share in shares], 2), 0, atol=1e-9)
    assert axes.get_yscale() == "linear"


@given(st.integers(1, 60), st.integers(0, 500))
@example(29, 174)  # names wider than their letters on average
@example(1, 389)  # a dot in the corner
@settings(max_examples=15, deadline=None)
def test_no_name_lies_on_another_one_or_beyond_the_axes(n_genes, seed):
    random = np.random.default_rng(seed)
    figure = Figure(figsize=(3, 3), layout="constrained")
    axes = figure.subplots()
    names = [f"GENE{i}" for i in range(n_genes)]
    shifts = random.gamma(0.5, 0.2, n_genes), random.gamma(0.5, 0.2, n_genes)
    shift_scatter(axes, *shifts, names, names[:2])
    FigureCanvasAgg(figure).draw()
    shown = axes.texts[1:]
    assert shown
    assert len(shown) <= 10
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    inside = axes.get_window_extent().padded(2)
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 for box in boxes)
    for text in shown:
        gene = names.index(text.get_text())
        assert text.xy == (shifts[0][gene], shifts[1][gene])


def test_marked_genes_are_named_first():
    figure = Figure(figsize=(3, 3), layout="constrained")
    axes = figure.subplots()
    x = np.linspace(0.1, 1, 20)
    shift_scatter(axes, x, x, [f"G{i}" for i in range(20)], ["G3"], n_named=2)
    assert [text.get_text() for text in axes.texts[1:]] == ["G3", "G19"]
    assert axes.texts[0].get_text().startswith("Pearson $r$ = 1.00\n20 genes")


def test_a_constant_prediction_has_no_correlation():
    axes = Figure(layout="constrained").subplots()
    shift_scatter(axes, np.array([0.1, 0.2]), np.zeros(2), ["A", "B"])
    assert "undefined" in axes.texts[0].get_text()


def test_split_differences_draw_each_gene_and_the_folds():
    random = np.random.default_rng(0)
    x, first, second = random.random(40), random.normal(size=40), random.normal(size=40)
    totals = {"one": np.array([0.1, 0.3]), "two": np.array([0.2, 0.2]), "sum": np.array([0.3, 0.5])}
    parts = {"one": first, "two": second, "sum": first + second}
    figure = split_differences(x, parts, totals, x_label="x", y_label="y", title="t")
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "mean over genes"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), x)
    means = [bar.get_height() for bar in figure.axes[2].patches]
    np.testing.assert_allclose(means, [0.2, 0.2, 0.4])
    middle = figure.axes[1].lines[1].get_xydata()
    assert len(middle) == 10
    assert middle[:, 1].mean() == pytest.approx(second.mean())
