"""Loss and gradient in one compiled pass, beside the same losses composed of torch operations and autograd.

The floor is one read of logits and targets and one write of the gradient, 2 MB at 25 bins, which stay in the cache:
well under 0.1 ms; what is left is an exponential and about 30 operations per bin, one after another. The composed form
pays for memory: each operation writes a fresh array, whose pages the system first has to provide, and torch's softmax
leaves its fast path for rows of fewer than 16 bins.
"""

import time
from statistics import median

import torch

from histpert.losses import composed_loss, weighted_loss

N_PERTURBATIONS, N_GENES, REPEATS = 32, 200, 20


def milliseconds(step) -> float:
    start = time.perf_counter()
    for _ in range(10):
        step()
    return (time.perf_counter() - start) * 100


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{N_PERTURBATIONS} perturbations x {N_GENES} genes, one thread; median ms of {REPEATS} interleaved repeats")
    print(f"{'bins':>5}{'composed':>10}{'one pass':>10}{'ratio':>7}")
    for n_bins in (5, 10, 15, 20, 25, 35):
        observed = torch.rand(N_PERTURBATIONS, N_GENES, n_bins)
        observed /= observed.sum(-1, keepdim=True)
        lower, width, mean = torch.zeros(N_GENES), torch.rand(N_GENES) + 0.1, torch.rand(N_PERTURBATIONS, N_GENES)
        logits = torch.randn(N_PERTURBATIONS, N_GENES, n_bins, requires_grad=True)
        arguments = logits, observed, mean, lower, width, (0.0, 0.75, 0.25)
        steps = {
            "composed": lambda arguments=arguments: torch.autograd.grad(composed_loss(*arguments), arguments[0]),
            "one pass": lambda arguments=arguments: torch.autograd.grad(weighted_loss(*arguments), arguments[0]),
        }
        for step in steps.values():
            step()  # compiles
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(REPEATS):
            for name, step in steps.items():
                times[name].append(milliseconds(step))
        slow, fast = (median(times[name]) for name in steps)
        print(f"{n_bins:5d}{slow:10.2f}{fast:10.2f}{slow / fast:7.2f}")


if __name__ == "__main__":
    main()
