"""Tables: csv with every number, markdown and LaTeX to read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.summary import OBSERVED, Sweep
from histpert.results import METRICS, write_atomically

__all__ = ["TARGETS", "latex_table", "left_out", "markdown_table", "write_tables", "write_texts"]

_SHOWN = {
    "nll": "NLL",
    "rmae_mean": "RMAE mean",
    "rmae_var": "RMAE var.",
    "rmae_skew": "RMAE skew.",
    "rmae_kurt": "RMAE kurt.",
    "pearson_top20": "Pearson 20",
    "pearson_top50": "Pearson 50",
    "pearson_top100": "Pearson 100",
}
BOOKTABS = "% needs \\usepackage{booktabs}"
TARGETS = {"all": "all perturbations", "apart": "the targets set apart", "rest": "all other targets"}
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\u2013": "--"}
_TEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def write_tables(table: pd.DataFrame, sweep: Sweep, apart: Sequence[str], folder: Path) -> list[Path]:
    """Write `resolution.csv`, with every number, and `.md` and `.tex` to read.

    Args:
        table: What `analysis.summary.summarize` returns, in printing order.
        sweep: What it was made of.
        apart: Genes whose perturbations are shown apart from the rest.
        folder: Where to write.
    """
    markdown, latex = [], [BOOKTABS]
    for (screen, targets), part in table.groupby(["screen", "targets"], sort=False):
        caption = _caption(str(screen), str(targets), sweep, apart)
        rows = [("Bins", "Method", *_SHOWN.values()), *_cells(part)]
        markdown.append(markdown_table(rows, caption))
        latex.append(latex_table(rows, caption))
    return write_texts(folder / "resolution", table.to_csv(index=False), "\n".join(markdown), "\n".join(latex))


def write_texts(path_without_suffix: Path, csv: str, markdown: str, latex: str) -> list[Path]:
    """Write the three forms of a table, each atomically; return their paths."""
    paths = []
    for kind, text in {"csv": csv, "md": markdown, "tex": latex}.items():
        paths.append(path_without_suffix.with_name(f"{path_without_suffix.name}.{kind}"))
        write_atomically(paths[-1], lambda beside, text=text: beside.write_text(text, encoding="utf-8"))
    return paths


def _caption(screen: str, targets: str, sweep: Sweep, apart: Sequence[str]) -> str:
    named = f" ({', '.join(apart)})" if targets == "apart" else ""
    failed = f" {left_out(sweep)}" if sweep.n_left_out else ""
    return (
        f"{screen}, {TARGETS[targets]}{named}: mean ± standard deviation over folds of the average over held-out"
        " perturbations. Bold: the best method with this number of bins. Observed Hist is not a method but the observed"
        " cells, binned: what binning alone costs; resolution.csv has the excess over it. NLL depends on the number of"
        f" bins and must not be compared across numbers of bins.{failed}"
    )


def _cells(part: pd.DataFrame) -> list[tuple[str, ...]]:
    """Printed rows of one screen, `**` around the best predictive method of each number of bins."""
    columns = []
    for metric in _SHOWN:
        printed = part[metric].map("{:.3f}".format)
        score = printed.astype(float).where(part["method"] != OBSERVED) * (
            -1 if METRICS[metric].higher_is_better else 1
        )
        rivals = score.groupby(part["n_bins"])
        best = score.eq(rivals.transform("min")) & (rivals.transform("count") > 1)
        texts = printed + part[f"{metric}_sd"].map(lambda sd: "" if pd.isna(sd) else f" ± {sd:.3f}")
        columns.append(texts.where(~best, "**" + texts + "**").where(part[metric].notna(), "\u2013"))
    return list(zip(part["n_bins"].astype(str), part["method"], *columns, strict=True))


def markdown_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Rows, the first one the heading, with the caption below."""
    header, *body = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([header, "|" + " --- |" * len(rows[0]), *body, "", caption, ""])


def latex_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """The same as a LaTeX table; cells in `**` are set bold."""
    header, *body = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\scriptsize\setlength{\tabcolsep}{2pt}",
            rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{rl{'c' * (len(rows[0]) - 2)}}}",
            *(r"\toprule", header, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _tex(text: str) -> str:
    if text.startswith("**"):
        return rf"\textbf{{{_tex(text.strip('*'))}}}"
    text = re.sub(r"(?<=\d) ± (?=\d)", "±", text)  # spaces there would not fit the page
    return re.sub(r"^-(?=\d)", "$-$", "".join(_TEX.get(letter, letter) for letter in text))


def left_out(sweep: Sweep) -> str:
    """How many trials the numbers lack."""
    return f"{sweep.n_left_out} of {sweep.n_trials} trials did not finish: their methods lack those folds here."
