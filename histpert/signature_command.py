"""`histpert signatures FILE ...`: perturbation signatures of screens, L1000 and tables, as one file to learn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.perturbert.corpus import write_corpus
from histpert.perturbert.reading import SignatureOptions, checked_signatures, read_signatures, read_vocabulary
from histpert.words import Words

__all__ = ["Signatures"]


@dataclass(frozen=True)
class Signatures:
    """Write perturbation signatures as one Arrow file, which `studies/pretrain.py --signatures` reads."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """FILE or CELL_LINE=FILE: screens (.h5ad, .zarr, 10x), level 5 of L1000 (.gctx), tidy tables of perturbation, gene
    and z_score or rank (.parquet, .csv, .tsv), or files that this command wrote."""
    out: Path = Path("signatures.arrow")
    """The file to write."""
    seed: int = 0
    """Of the cells that are drawn of screens."""
    how: SignatureOptions = field(default_factory=SignatureOptions)
    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Write the file, and say what is in it."""
        if not self.files:
            raise InputError("histpert signatures: name a file")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        out = absolute(self.out, "--out")
        if out.suffix != ".arrow":
            raise InputError(f"--out {out}: name a file that ends in .arrow")
        with self.words.said() as outcome:
            outcome.update(self._written(out))
        return 0

    def _written(self, out: Path) -> dict[str, Any]:
        genes = None if self.how.vocabulary is None else read_vocabulary(self.how.vocabulary)
        sources = [read_signatures(given, self.how, self.seed, genes) for given in checked_signatures(self.files)]
        for source in sources:
            for note in source.notes:
                print(f"  {note}")
        try:
            corpus = write_corpus(out, sources, genes)
        except OSError as error:
            raise InputError(f"--out {out} cannot be written ({error.strerror or error}): name another file") from error
        print(f"{out}: {corpus}")
        return {
            "file": out,
            "n_signatures": len(corpus),
            "n_perturbations": len(set(corpus.perturbations)),
            "cell_lines": sorted(set(corpus.cell_lines)),
            "n_genes": len(corpus.genes),
        }
