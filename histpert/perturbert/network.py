"""The network: a transformer encoder of (gene, response) tokens, in any order, beside one of the cell line."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from histpert.perturbert.settings import N_BINS, BertSettings

__all__ = ["PerturBERT"]

_INITIAL_DEVIATION, _EPSILON = 0.02, 1e-12


class PerturBERT(nn.Module):
    """Encoder of perturbation signatures (PerturBERT's paper, sections 3 and 4 and Table 4).

    A token is the sum of a gene's embedding and that of its response; the embedding of the cell line is a token more.
    There are no positions: a signature is a set. As in BERT, embeddings pass LayerNorm and dropout first, and each of a
    layer's two parts is followed by LayerNorm. The published 57.62 million parameters are the three tables and eight
    layers; LayerNorm of the embeddings and the output head add 14,609.

    Args:
        n_genes: Of the vocabulary.
        n_lines: Cell lines that are trained on.
        settings: The shape.
    """

    def __init__(self, n_genes: int, n_lines: int, settings: BertSettings):
        super().__init__()
        self.genes = nn.Embedding(n_genes, settings.width)
        self.responses = nn.Embedding(N_BINS + 1, settings.width)
        self.lines = nn.Embedding(n_lines, settings.width)
        self.norm = nn.LayerNorm(settings.width, eps=_EPSILON)
        self.dropout = nn.Dropout(settings.dropout)
        layer = nn.TransformerEncoderLayer(
            settings.width,
            settings.heads,
            settings.feed_forward,
            settings.dropout,
            nn.functional.silu,
            layer_norm_eps=_EPSILON,
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.head = nn.Linear(settings.width, N_BINS)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INITIAL_DEVIATION)
            if isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_weight, std=_INITIAL_DEVIATION)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def hidden(
        self,
        genes: Int[Tensor, "signature token"],
        responses: Int[Tensor, "signature token"],
        cell_lines: Int[Tensor, "signature"],
        present: Bool[Tensor, "signature token"] | None = None,
    ) -> Float[Tensor, "signature token width"]:
        """What each gene's token has become in the context of the others.

        Args:
            genes: Numbers of the genes.
            responses: Their bins, or masks.
            cell_lines: As many as there are lines for one that is not known: the mean of all stands for it.
            present: Tokens that there are; all where it is left out. The others are seen by none.
        """
        tokens = self.genes(genes) + self.responses(responses)
        table = torch.cat([self.lines.weight, self.lines.weight.mean(dim=0, keepdim=True)])
        line = nn.functional.embedding(cell_lines, table)[:, None]
        sequence = self.dropout(self.norm(torch.cat([line, tokens], dim=1)))
        unseen = None if present is None else torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        return self.encoder(sequence, src_key_padding_mask=unseen)[:, 1:]

    def forward(
        self,
        genes: Int[Tensor, "signature token"],
        responses: Int[Tensor, "signature token"],
        cell_lines: Int[Tensor, "signature"],
        present: Bool[Tensor, "signature token"] | None = None,
    ) -> Float[Tensor, "signature token bin"]:
        """Logits of each gene's bin."""
        return self.head(self.hidden(genes, responses, cell_lines, present))
