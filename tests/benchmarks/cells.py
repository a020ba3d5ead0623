"""CellTARNet's time and memory against the number of genes: a training step, and sampling with kept keys and values.

Beside sampling stands what one would do without keeping them: all genes worked out anew for each gene that is drawn. Of
that some genes are timed, spread over the block, and the rest is reckoned from them. Last comes a block's attention
under its mask by torch's scaled-dot-product and by compiled flex attention, forward: on a CPU flex has no backward.

`make bench-cells`, or `python tests/benchmarks/cells.py --genes 100 200 500 1000 --cells 100 --figure cells.png`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from histpert.celltarnet.flow import CellFlow, FlowBlock
from histpert.celltarnet.settings import FlowSettings

N_TIMED = 4
"""Genes of which sampling without kept keys and values is timed."""


@torch.no_grad()
def without_keeping(block: FlowBlock, noise: torch.Tensor, context: torch.Tensor, places: list[int]) -> torch.Tensor:
    """The block's inverse at some places, each from a pass over all genes; values before them must stand in `noise`."""
    ordered, values = noise[:, block.order], noise[:, block.order].clone()
    for place in places:
        shift, scale = block.parameters_all(values, context)
        values[:, place] = (ordered[:, place] - shift[:, place]) * (-scale[:, place]).exp()
    found = torch.empty_like(values)
    found[:, block.order] = values
    return found


def made(n_genes: int, n_cells: int) -> tuple[CellFlow, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    attended = torch.rand(n_genes, n_genes) < 20 / n_genes
    flow = CellFlow(n_genes, 100, FlowSettings(), attended)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    cells = torch.randn(n_cells, n_genes)
    return flow, cells, flow.encoder(cells, torch.randn(n_cells, 100)).detach()


def seconds(work, repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def measure(n_genes: int, n_cells: int) -> dict[str, float]:
    flow, cells, context = made(n_genes, n_cells)

    def step():
        context = flow.encoder(cells[:32], torch.randn(32, 100))
        flow.log_density(cells[:32], context).sum().backward()

    step()
    of_step = seconds(step, 2)
    kept = seconds(lambda: flow.inverse(cells, context))
    places = torch.linspace(0, n_genes - 1, N_TIMED).long().tolist()
    blocks = [block for block in flow.blocks if isinstance(block, FlowBlock)]
    anew = seconds(lambda: without_keeping(blocks[0], cells, context, places)) / N_TIMED * n_genes * len(blocks)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"genes": n_genes, "step": of_step, "kept": kept, "anew": anew, "memory": memory}


def check() -> None:
    """The same noise gives the same cells, kept or worked out anew."""
    flow, noise, context = made(40, 8)
    block = flow.blocks[0]
    assert isinstance(block, FlowBlock)
    torch.testing.assert_close(
        without_keeping(block, noise, context, list(range(40))), block.inverse(noise, context), rtol=1e-4, atol=1e-4
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="+", default=[100, 200, 500, 1000])
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:  # in a process of its own, whose memory is that of this size
        print(*measure(asked.one, asked.cells).values())
        return
    check()
    print(f"{asked.cells} cells, {torch.get_num_threads()} threads; a step is of 32 cells")
    rows = []
    for n_genes in asked.genes:
        command = [sys.executable, __file__, "--one", str(n_genes), "--cells", str(asked.cells)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = dict(zip(("genes", "step", "kept", "anew", "memory"), map(float, done.stdout.split()), strict=True))
        rows.append(row)
        print(
            f"{n_genes:>5} genes: a step {row['step']:.2f} s; sampling {row['kept']:.1f} s, without keeping "
            f"{row['anew']:.0f} s (reckoned), {row['anew'] / row['kept']:.0f} times as long; {row['memory']:.0f} MiB",
            flush=True,
        )
    for n_genes in asked.genes:
        plain, flexible = attention_times(n_genes)
        print(f"{n_genes:>5} genes: masked attention {plain * 1e3:.1f} ms, compiled flex {flexible * 1e3:.1f} ms")
    if asked.figure:
        draw(rows, asked.figure)


def attention_times(n_genes: int, n_cells: int = 32, heads: int = 2, channels: int = 16) -> tuple[float, float]:
    """Seconds of scaled-dot-product and of compiled flex attention, forward, under the same sparse causal mask."""
    flow, _, _ = made(n_genes, 1)
    block = flow.blocks[0]
    assert isinstance(block, FlowBlock)
    allowed = block.allowed
    queries = torch.randn(n_cells, heads, n_genes, channels)
    keys, values = torch.randn(2, n_cells, heads, n_genes + 1, channels)
    blocks = create_block_mask(lambda _b, _h, q, k: allowed[q, k], None, None, n_genes, n_genes + 1, device="cpu")
    compiled = torch.compile(flex_attention)

    def plain():
        return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)

    def flexible():
        return compiled(queries, keys, values, block_mask=blocks)

    with torch.no_grad():
        torch.testing.assert_close(plain(), flexible(), rtol=1e-3, atol=1e-4)
        return seconds(plain, 5), seconds(flexible, 5)


def draw(rows: list[dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    time_axis, memory_axis = figure.subplots(1, 2)
    genes = [row["genes"] for row in rows]
    for name, label in {
        "step": "training step, 32 cells",
        "kept": "sampling",
        "anew": "sampling, nothing kept",
    }.items():
        time_axis.loglog(genes, [row[name] for row in rows], marker="o", label=label)
    time_axis.set(xlabel="Genes", ylabel="Seconds")
    time_axis.legend(frameon=False)
    memory_axis.plot(genes, [row["memory"] for row in rows], marker="o", color="#333333")
    memory_axis.set(xlabel="Genes", ylabel="Peak memory (MiB)", ylim=0)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
