"""Which gene embeddings tell most about unseen perturbations? Sources beside each other, each method on the same folds.

`python -m analysis.embedding_sources FOLDER [--out DIR]` draws it from the result tables of the study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.averages import same_perturbations
from analysis.choices import printed_choices, read_choices, summarize_choices
from analysis.methods_tables import method_rank
from analysis.output import draw_folder_again, output_folders
from analysis.reading import Study, left_out
from analysis.tables import write_tables
from histpert.plots import CurveStyle, DotPanel, dot_panels, save_figure
from histpert.plots.style import COLORS, MARKERS
from histpert.results import METRICS, RANDOM

__all__ = ["draw_embedding_sources", "main"]

_PANELS = ("rmae_mean", "rmae_var", "crps", "energy_distance", "pearson_top20", "pearson_delta_split")
_CAPTION = (
    "The same methods with gene embeddings of several sources, each scaled alike. Rows of Random: mean ± standard"
    " deviation over folds of the average over held-out perturbations. Other rows: difference to Random over the same"
    " perturbations, and Student's 95% interval, which does not know that perturbations of a fold share a model."
    " Better, worse: that interval and the one over differences of fold means both lie on that side of zero. One-hot"
    " tells nothing of an unseen gene either."
)


def draw_embedding_sources(folder: Path, out: Path) -> list[Path]:
    """Write `figures/` and `tables/embedding_sources.*` into `out`; returns their paths.

    Raises:
        InputError: The folder holds no study of sources, or `out` cannot be written.
    """
    study = read_choices(folder, RANDOM)
    table = summarize_choices(study, RANDOM)
    with output_folders(out) as (figures, tables):
        printed = printed_choices(table, study, _CAPTION, "Embeddings", RANDOM)
        paths = write_tables(tables / "embedding_sources", table.rename(columns={"variant": "source"}), printed)
        paths += save_figure(_figure(study), figures / "embedding_sources")
    if study.n_left_out:
        print(left_out(study))
    return paths


def _figure(study: Study) -> Figure:
    rows = same_perturbations(study.rows, ["screen", "method", "variant"])
    per_fold = {key: part.groupby("fold")[list(_PANELS)].mean() for key, part in rows.groupby(["method", "variant"])}
    methods = sorted(rows["method"].unique(), key=method_rank)
    sources = list(dict.fromkeys(study.trials["variant"]))
    names = {(method, source): f"{method}, {source}" for method in methods for source in sources}
    styles = {
        name: CurveStyle(COLORS[sources.index(source) % len(COLORS)], MARKERS[methods.index(method) % len(MARKERS)])
        for (method, source), name in names.items()
    }
    panels = [
        DotPanel(
            METRICS[metric].label,
            {name: per_fold[point][metric].to_numpy(float) for point, name in names.items()},
            METRICS[metric].higher_is_better,
        )
        for metric in _PANELS
    ]
    return dot_panels(panels, styles, {}, columns=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "embedding_sources",
        "Compare sources of embeddings, from the result tables of a study.",
        arguments,
        draw_embedding_sources,
    )


if __name__ == "__main__":
    sys.exit(main())
