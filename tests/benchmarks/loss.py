"""Loss and gradient in one pass, beside the same losses composed of torch operations and differentiated by autograd.

The floor is arithmetic on a few arrays of 32 perturbations x 200 genes x bins, which fit into the cache. What a plain
loop pays instead is memory: each operation writes a fresh array, whose pages the system first has to provide, and
torch's softmax leaves its fast path for rows of fewer than 16 bins.
"""

import time
from statistics import median

import torch
from torch import Tensor

from histpert.losses import HistogramLoss, mean_squared_error, wasserstein1

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
        one_pass = HistogramLoss(lower, width, (0.0, 0.75, 0.25))

        def composed(logits=logits, observed=observed, width=width, lower=lower, mean=mean) -> Tensor:
            predicted = logits.softmax(-1)
            distance = wasserstein1(predicted, observed, width).mean()
            return 0.75 * distance + 0.25 * mean_squared_error(predicted, mean, lower, width).mean()

        steps = {
            "composed": lambda composed=composed, logits=logits: torch.autograd.grad(composed(), logits),
            "one pass": lambda loss=one_pass, logits=logits, observed=observed, mean=mean: torch.autograd.grad(
                loss(logits, observed, mean), logits
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(REPEATS):
            for name, step in steps.items():
                times[name].append(milliseconds(step))
        slow, fast = (median(times[name]) for name in steps)
        print(f"{n_bins:5d}{slow:10.2f}{fast:10.2f}{slow / fast:7.2f}")


if __name__ == "__main__":
    main()
