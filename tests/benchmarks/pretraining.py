"""Tokens per second of PerturBERT's training, beside its floor and beside what one would do instead.

The floor is the step's operations, 6 for each weight of the encoder and token and those of attention, over the rate of
a large matrix product here. Beside it stand the same network with attention written out, its encoder alone, and that
of `transformers`, where it is installed. On a GPU all in bfloat16 and compiled, on a CPU in float32.

`make bench-pretraining`, or `python tests/benchmarks/pretraining.py --presets small --genes 128 --batch 64`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from histpert.perturbert.network import PerturBERT
from histpert.perturbert.pretraining import pretrain
from histpert.perturbert.settings import N_BINS, PRESETS, BertSettings
from histpert.perturbert.tokens import Tokens
from studies.device_rates import operations_per_second

N_LINES = 248
N_STEPS = {"cpu": 2, "cuda": 20}


def tokens_of(n_signatures: int, n_genes: int) -> Tokens:
    random = np.random.default_rng(0)
    responses = random.integers(0, N_BINS, (n_signatures, n_genes), dtype=np.uint8)
    return Tokens(responses, random.integers(0, N_LINES, n_signatures), tuple(map(str, range(N_LINES))))


def operations_per_token(settings: BertSettings, n_tokens: int) -> float:
    """Forward, and twice as many backward: two for each weight, and those of the two products of attention."""
    of_layer = 4 * settings.width**2 + 2 * settings.width * settings.feed_forward
    attention = 2 * n_tokens * settings.width
    return 6 * settings.layers * (of_layer + attention)


def epochs(settings: BertSettings, n_genes: int, device: torch.device) -> Iterator[float]:
    """Seconds of each epoch of our training; the first has compilation in it."""
    torch.manual_seed(0)
    network = PerturBERT(n_genes, N_LINES, settings).to(device)
    training = tokens_of(settings.batch_size * N_STEPS[device.type], n_genes)
    validation = tokens_of(1, n_genes)
    for epoch in pretrain(network, training, validation, settings):
        yield epoch.seconds


def ours(settings: BertSettings, n_genes: int, device: torch.device) -> float:
    """Seconds of a step."""
    _, second = epochs(settings, n_genes, device)
    return second / N_STEPS[device.type]


def written_out(settings: BertSettings, n_genes: int, device: torch.device) -> float:
    """The same with attention as two products and a softmax."""
    with sdpa_kernel(SDPBackend.MATH):
        return ours(settings, n_genes, device)


def transformers_encoder(settings: BertSettings) -> nn.Module | None:
    """BERT's of `transformers`; None where that is not installed."""
    try:
        from transformers import BertConfig, BertModel  # noqa: PLC0415
    except ImportError:
        return None
    config = BertConfig(
        vocab_size=1,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        hidden_act="silu",
        attn_implementation="sdpa",
    )
    return BertModel(config, add_pooling_layer=False).encoder


def alone(encoder: nn.Module, settings: BertSettings, n_genes: int, device: torch.device) -> float:
    """Seconds of a step of an encoder with AdamW: no embeddings, masks, head, clipping or validation."""
    encoder.to(device).train()
    run: Any = torch.compile(encoder) if device.type == "cuda" else encoder
    optimizer = torch.optim.AdamW(encoder.parameters(), fused=True)
    tokens = torch.randn(settings.batch_size, n_genes + 1, settings.width, device=device)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
            found = run(tokens)
            loss = (found if isinstance(found, torch.Tensor) else found[0]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return seconds(step, device)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    n_steps = N_STEPS[device.type]
    for _ in range(n_steps):
        step()
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(n_steps):
        step()
    wait()
    return (time.perf_counter() - start) / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["small", "published"], choices=list(PRESETS))
    parser.add_argument("--genes", type=int, help="tokens of a signature; default: the preset's, of 932 genes")
    parser.add_argument("--batch", type=int, help="signatures per step; default: 64 (small), 2, on a GPU 200")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rate = operations_per_second(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    print(f"{name}: {rate / 1e9:,.0f} G operations/s in a large product")
    for preset in options.presets:
        start = PRESETS[preset]
        n_tokens = options.genes or start.genes_per_signature or 932
        batch = options.batch or (64 if preset == "small" else 200 if device.type == "cuda" else 2)
        settings = BertSettings(
            **{one: getattr(start, one) for one in ("width", "layers", "heads", "feed_forward", "dropout")},
            batch_size=batch,
            epochs=2,
        )
        floor = operations_per_token(settings, n_tokens) / rate
        print(f"{preset}: {batch} signatures x {n_tokens} genes, floor {1 / floor:,.0f} tokens/s")
        taken = {"ours": ours(settings, n_tokens, device)}
        taken["attention written out"] = written_out(settings, n_tokens, device)
        taken["its encoder alone"] = alone(PerturBERT(1, 1, settings).encoder, settings, n_tokens, device)
        if (theirs := transformers_encoder(settings)) is not None:
            taken["transformers' encoder alone"] = alone(theirs, settings, n_tokens, device)
        for what, second in taken.items():
            per_second = batch * n_tokens / second
            ratio = second / taken["ours"]
            print(
                f"  {what}: {per_second:,.0f} tokens/s, {per_second * floor:.0%} of the floor's, {ratio:.2f} x our time"
            )


if __name__ == "__main__":
    main()
