"""What a simulated screen is like: its sizes, its expression, its effects; and the sizes of published screens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from histpert.errors import InputError

__all__ = ["PRESETS", "Preset", "Simulation"]

Preset = Literal["papalexi", "easy", "norman", "replogle-k562", "replogle-rpe1"]

LEAST_DISPERSION = 1e-6


@dataclass(frozen=True)
class Simulation:
    """Sizes, expression and effects of a simulated screen.

    What can be read off a screen was set to match Papalexi 2021 (THP-1, 303 genes) before any model was trained on it.
    The rest is a choice: how much the embeddings tell, and the effects on dispersions and silencing.
    """

    n_perturbations: int = 25
    """Genes perturbed alone."""
    n_pairs: int = 0
    """Pairs of them perturbed together."""
    n_genes: int = 303
    """Genes measured; the perturbed ones are among them."""
    n_cells: int = 16_093
    """All cells, control cells included."""
    n_control: int = 1_912
    """Control cells."""
    min_cells: int = 33
    """Fewest cells of a perturbation."""
    max_cells: int = 1_056
    """Most cells of a perturbation."""
    cells_spread: float = 0.6
    """Standard deviation of the log number of cells per perturbation, before the two limits."""

    library_size: float = 12_300.0
    """Median total count of a cell, over the whole transcriptome."""
    library_spread: float = 0.54
    """Standard deviation of its logarithm."""
    log_rate_mean: float = -2.2
    """Mean over genes of the log rate: natural logarithm of counts expected in control, per 10,000 of the cell."""
    log_rate_spread: float = 2.0
    """Standard deviation over genes of the log rate."""
    dispersion: float = 0.1
    """Negative-binomial dispersion of highly expressed genes: variance = mean + dispersion * mean^2."""
    rare_dispersion: float = 0.045
    """Adds rare_dispersion / rate to a gene's dispersion (the trend of DESeq2)."""
    n_programs: int = 20
    """Gene programs; genes of a program vary together."""
    program_spread: float = 0.5
    """Standard deviation of a control cell's log rates through its programs, root mean square over genes, before that
    of a gene is cut at 0.8."""

    null_share: float = 0.4
    """Share of perturbations that change no gene but their own."""
    effect_size: float = 0.12
    """Root mean square over genes of the log fold change in responding cells, median over the other perturbations;
    before large changes saturate."""
    effect_spread: float = 1.1
    """Standard deviation over perturbations of the logarithm of that."""
    told_share: float = 0.5
    """Share of the variance of effects between perturbations that follows from the genes' functions."""
    guide_efficiency: float = 0.8
    """Share of a perturbation's cells that respond, on average over perturbations."""
    own_gene_fold: float = 0.3
    """Fold change of the perturbed gene itself in responding cells; above 1 for CRISPR activation."""
    dispersion_effect: float = 0.5
    """Change of log dispersions for a change of log rates, both root mean squares over genes."""
    silencing_effect: float = 0.3
    """Rate of silencing for a change of log rates, both root mean squares over genes. A silenced gene has no counts."""
    epistatic_share: float = 0.5
    """Share of pairs whose joint effect is not the sum of the single ones."""

    n_features: tuple[int, int] = (64, 32)
    """Length of the embeddings, for each of the two sources."""
    embedding_quality: tuple[float, float] = (0.9, 0.4)
    """Share of the variance of the genes' functions that each source of embeddings sees."""

    def __post_init__(self):
        _check_sizes(self)
        _check(self, "guide_efficiency", 0 < self.guide_efficiency <= 1, "above 0, up to 1")
        for name in ("null_share", "told_share", "epistatic_share"):
            _check(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        _check(self, "library_size", 1 <= self.library_size <= 1e6, "from 1 to 1,000,000")
        _check(self, "own_gene_fold", 1e-3 <= self.own_gene_fold <= 1e3, "from 0.001 to 1,000")
        least = LEAST_DISPERSION
        _check(self, "dispersion", least <= self.dispersion <= 100, f"from {least:g}, as good as Poisson, to 100")
        spreads = ("cells_spread", "library_spread", "log_rate_spread", "program_spread", "effect_spread")
        for name in (*spreads, "rare_dispersion", "effect_size", "dispersion_effect", "silencing_effect"):
            _check(self, name, 0 <= getattr(self, name) <= 10, "from 0 to 10")
        _check(self, "library_spread", self.library_spread <= 2, "from 0 to 2")
        _check(self, "log_rate_mean", -20 <= self.log_rate_mean <= 10, "from -20 to 10")
        _check(self, "n_features", min(self.n_features) >= 1, "1 or more")
        quality = self.embedding_quality
        _check(self, "embedding_quality", all(0 <= share <= 1 for share in quality), "from 0 to 1")


def _check(simulation: Simulation, name: str, good: bool, wanted: str) -> None:
    if not good:
        value = getattr(simulation, name)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        raise InputError(f"--{name.replace('_', '-')} {shown}: must be {wanted}")


def _check_sizes(simulation: Simulation) -> None:
    for name in ("n_perturbations", "n_genes", "n_control", "min_cells", "n_programs"):
        _check(simulation, name, getattr(simulation, name) >= 1, "1 or more")
    n = simulation.n_perturbations
    _check(simulation, "n_perturbations", n <= simulation.n_genes, f"at most the {simulation.n_genes} genes")
    _check(simulation, "n_pairs", 0 <= simulation.n_pairs <= n * (n - 1) // 2, f"0 to the {n * (n - 1) // 2} there are")
    n_groups = n + simulation.n_pairs
    least, most = (simulation.n_control + n_groups * bound for bound in (simulation.min_cells, simulation.max_cells))
    _check(
        simulation,
        "n_cells",
        least <= simulation.n_cells <= most,
        f"{least:,} to {most:,} for {simulation.n_control:,} control cells and {n_groups:,} perturbations of "
        f"{simulation.min_cells:,} to {simulation.max_cells:,} cells",
    )


PRESETS: Mapping[Preset, Simulation] = {
    "papalexi": Simulation(),
    "easy": Simulation(
        n_perturbations=90,
        n_genes=200,
        n_cells=10_000,
        n_control=1_000,
        min_cells=60,
        max_cells=140,
        cells_spread=0.3,
        log_rate_mean=-0.6,
        log_rate_spread=1.3,
        n_programs=8,
        program_spread=0.35,
        null_share=0.0,
        effect_size=0.7,
        effect_spread=0.3,
        told_share=0.9,
    ),
    "norman": Simulation(
        n_perturbations=102,
        n_pairs=131,
        n_genes=5_045,
        n_cells=91_205,
        n_control=7_353,
        min_cells=50,
        max_cells=1_200,
        cells_spread=0.4,
        library_size=14_000.0,
        library_spread=0.4,
        log_rate_mean=-9.2,
        log_rate_spread=4.6,
        null_share=0.2,
        effect_size=0.3,
        effect_spread=0.8,
        own_gene_fold=8.0,
        n_features=(1_536, 1_024),
    ),
    "replogle-k562": Simulation(
        n_perturbations=1_092,
        n_genes=5_000,
        n_cells=162_751,
        n_control=10_691,
        min_cells=15,
        max_cells=765,
        library_size=11_000.0,
        library_spread=0.4,
        log_rate_mean=-0.98,
        log_rate_spread=1.2,
        own_gene_fold=0.15,
        n_features=(1_536, 1_024),
    ),
    "replogle-rpe1": Simulation(
        n_perturbations=1_543,
        n_genes=5_000,
        n_cells=162_733,
        n_control=11_485,
        min_cells=15,
        max_cells=765,
        library_size=11_000.0,
        library_spread=0.4,
        log_rate_mean=-1.13,
        log_rate_spread=1.2,
        own_gene_fold=0.15,
        n_features=(1_536, 1_024),
    ),
}
"""Settings by name: of published screens, and `easy`, where every effect is strong and told by the embeddings.

Sizes are those of the usual processed files. The log rates of `norman` and its effects match a slice of that screen;
those of `replogle-k562` and `replogle-rpe1` are set to their published fractions of zeros, 61% and 64%, and their
effects are those of `papalexi`, no values of theirs being at hand.
"""
