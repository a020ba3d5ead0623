"""MLP+Hist as one would first write it in PyTorch: what the training loop is timed beside and checked against.

Module, DataLoader, eager losses and torch's default AdamW. It shares nothing with `histpert`, so that neither speed nor
errors of ours get into it. In float64 it is the reference for loss curves.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["plain_loss", "plain_network", "plain_steps", "three_products"]


def plain_network(n_features: int, hidden: Sequence[int], n_genes: int, n_bins: int, dropout: float) -> nn.Sequential:
    """Section 4.1 of the paper, with an output layer that starts near zero."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip((n_features, *hidden), hidden, strict=False):
        layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.LeakyReLU(), nn.Dropout(dropout)]
    output = nn.Linear(hidden[-1], n_genes * n_bins)
    nn.init.normal_(output.weight, std=0.01 * (2 / hidden[-1]) ** 0.5)
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output, nn.Unflatten(1, (n_genes, n_bins)))


def plain_loss(logits: Tensor, observed: Tensor, mean: Tensor, lower: Tensor, width: Tensor, weights) -> Tensor:
    """Eq. 5, 7 and the cross-entropy of appendix C, averaged over batch and genes."""
    predicted = logits.softmax(-1)
    cdf_gap = (predicted - observed).cumsum(-1)
    left, right = nn.functional.pad(cdf_gap, (1, 0))[..., :-1], cdf_gap
    size = left.abs() + right.abs()
    same_sign = width[:, None] / 2 * size
    crossing = width[:, None] / 2 * (left**2 + right**2) / size.clamp_min(torch.finfo(size.dtype).tiny)
    wasserstein = torch.where(left * right >= 0, same_sign, crossing).sum(-1)
    centers = lower[:, None] + width[:, None] * (torch.arange(logits.shape[-1], device=logits.device) + 0.5)
    squared_error = ((predicted * centers).sum(-1) - mean) ** 2
    cross_entropy = -(observed * logits.log_softmax(-1)).sum(-1)
    weight_ce, weight_wass, weight_mse = weights
    return (weight_ce * cross_entropy + weight_wass * wasserstein + weight_mse * squared_error).mean()


def plain_steps(
    network: nn.Module,
    data: Mapping[str, Tensor],
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    weights: tuple[float, float, float],
) -> Iterator[float]:
    """Train for ever, on the network's device; yields the loss of each step."""
    dataset = TensorDataset(data["embeddings"], data["masses"], data["means"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    network.train()
    device = next(network.parameters()).device
    log_control, lower, width = (data[name].to(device) for name in ("log_control", "lower", "width"))
    while True:
        for embeddings, masses, means in DataLoader(dataset, batch_size, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            logits = network(embeddings.to(device)) + log_control
            loss = plain_loss(logits, masses.to(device), means.to(device), lower, width, weights)
            loss.backward()
            optimizer.step()
            yield loss.item()


def three_products(batch_size: int, n_hidden: int, n_outputs: int, device: torch.device):
    """The output layer's three matrix products, into memory that is there already: the floor of a step on a CPU."""
    hidden, weight = torch.randn(batch_size, n_hidden, device=device), torch.randn(n_outputs, n_hidden, device=device)
    outer = torch.randn(batch_size, n_outputs, device=device)
    logits, of_weight, of_hidden = torch.empty_like(outer), torch.empty_like(weight), torch.empty_like(hidden)

    def multiply() -> None:
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(outer.T, hidden, out=of_weight)
        torch.mm(outer, weight, out=of_hidden)

    return multiply
