"""Multi-head attention whose keys and values can be kept, and the layers that are made of it."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["Attention", "KeysValues", "Layer"]


class KeysValues(NamedTuple):
    """What is attended to."""

    keys: Float[Tensor, "cell head token channel"]
    values: Float[Tensor, "cell head token channel"]


class Attention(nn.Module):
    """Scaled dot-product attention of one sequence to another."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self._heads = heads
        self.to_queries = nn.Linear(width, width)
        self.to_keys_values = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def kept(self, tokens: Float[Tensor, "cell token width"]) -> KeysValues:
        """Keys and values of these tokens."""
        return KeysValues(*(self._split(part) for part in self.to_keys_values(tokens).chunk(2, dim=-1)))

    def forward(
        self,
        queries: Float[Tensor, "cell query width"],
        kept: KeysValues,
        allowed: Bool[Tensor, "query token"] | None = None,
    ) -> Float[Tensor, "cell query width"]:
        """What each query takes from the tokens that it may attend to, of which each has one."""
        found = nn.functional.scaled_dot_product_attention(
            self._split(self.to_queries(queries)), *kept, attn_mask=allowed
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def _split(self, tokens: Float[Tensor, "cell token width"]) -> Float[Tensor, "cell head token channel"]:
        return tokens.unflatten(-1, (self._heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention to the context, attention to the genes before, and a perceptron with GELU; each after LayerNorm."""

    def __init__(self, width: int, heads: int, expansion: int):
        super().__init__()
        self.norm_across, self.norm_own, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.across, self.own = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(
        self,
        queries: Float[Tensor, "cell query width"],
        context: KeysValues,
        before: KeysValues,
        allowed: Bool[Tensor, "query token"],
    ) -> Float[Tensor, "cell query width"]:
        """The same sequence, one layer on."""
        queries = queries + self.across(self.norm_across(queries), context)
        queries = queries + self.own(self.norm_own(queries), before, allowed)
        return queries + self.mlp(self.norm_mlp(queries))
