"""The output layer, which is nearly all of a network: its AdamW step is part of its backward pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from histpert.settings import ModelSettings

__all__ = ["OutputLayer"]

BLOCK_BYTES = 4 << 20
"""Of the weights that are multiplied and updated at a time: they and their gradient stay in the processor's cache.

Measured at 1,024 x 75,000 weights and 32 rows, two cores, whole against in blocks: the product forward 82 and 48 ms,
the gradient of the weights 45 and 31, the backward pass with its update 137 and 124."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""AdamW's, those that torch takes by default."""


class OutputLayer(nn.Linear):
    """A linear layer. On a CPU, between `begin` and `end`, each backward pass also takes the AdamW step of its weights.

    A step of a large layer takes as long as its bytes need. Apart from each other, the backward pass writes the
    gradient and the optimizer reads it again; here a block of rows is multiplied, differentiated and updated while it
    is in the cache, and no gradient is kept. The numbers are those of `torch.optim.AdamW`, to rounding.
    """

    first_moment: Tensor
    second_moment: Tensor
    n_steps: Tensor
    _settings: ModelSettings | None = None

    def begin(self, settings: ModelSettings) -> bool:
        """Take up a training; returns whether this layer updates its weights itself, which its optimizer must not then.

        Moments of the gradient are buffers meanwhile, so that a state of the network has them.
        """
        if self.weight.device.type != "cpu":
            return False
        self._settings = settings
        self.register_buffer("first_moment", torch.zeros_like(self.weight))
        self.register_buffer("second_moment", torch.zeros_like(self.weight))
        self.register_buffer("n_steps", torch.zeros(()))
        self._gradient = torch.empty_like(self.weight[: self._n_rows])
        return True

    def end(self) -> None:
        """The training has ended: nothing is kept for it."""
        if self._settings is not None:
            self._settings = None
            del self.first_moment, self.second_moment, self.n_steps, self._gradient

    @property
    def _n_rows(self) -> int:
        """Of a block."""
        return max(1, BLOCK_BYTES // self.weight[0].nbytes)

    def forward(self, input: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch output"]:
        """The layer's product."""
        if self._settings is None or not torch.is_grad_enabled():
            return super().forward(input)
        return _UpdatedProduct.apply(input, self.bias, self)

    @torch.no_grad()
    def product(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch output"]:
        """What the layer makes of its inputs, block by block."""
        outputs = hidden.new_empty(len(hidden), self.out_features)
        parts = zip(*(whole.split(self._n_rows) for whole in (self.weight, self.bias)), strict=True)
        for (weight, bias), part in zip(parts, outputs.split(self._n_rows, dim=1), strict=True):
            torch.addmm(bias, hidden, weight.T, out=part)
        return outputs

    @torch.no_grad()
    def update(
        self, hidden: Float[Tensor, "batch hidden"], outer: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch hidden"]:
        """Update the weights, given the inputs and the gradient in the outputs; returns the gradient in the inputs."""
        settings, of_hidden = self._settings, torch.zeros_like(hidden)
        assert settings is not None
        self.n_steps += 1
        n_rows = self._n_rows
        parts = zip(
            *(whole.split(n_rows) for whole in (self.weight, self.first_moment, self.second_moment)),
            outer.split(n_rows, dim=1),
            strict=True,
        )
        for weight, first, second, part in parts:
            gradient = self._gradient[: len(weight)]
            of_hidden.addmm_(part, weight)
            torch.mm(part.T, hidden, out=gradient)
            torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
                [weight],
                [gradient],
                [first],
                [second],
                [],
                [self.n_steps],
                lr=settings.learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=settings.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        return of_hidden


class _UpdatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, bias: Tensor, layer: OutputLayer) -> Tensor:
        ctx.save_for_backward(hidden)
        ctx.layer = layer
        return layer.product(hidden)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (hidden,) = ctx.saved_tensors
        return ctx.layer.update(hidden, outer[0]), outer[0].sum(0), None
