"""The text encoder of klein-nano: real Klein tokens in, eight conditioning tokens of width 192 out.

Tokens come from ComfyUI's own Klein tokenizer and chat template. Few of Qwen's 151,936 tokens occur in
klein-nano's world, so the embedding keeps only those (the rest share one "unknown" row). Two bidirectional
transformer layers read the sentence; eight learned queries collect it. Torch only: the trainer in
`tools/nano` and ComfyUI run the same class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PAD_TOKEN = 151643
WIDTH = 128
HEADS = 4
LAYERS = 2
QUERIES = 8
CONTEXT_WIDTH = 192


def sinusoidal_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Fixed positions `[length, width]` (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-9.21034 / width))
    angle = position * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class AttentionLayer(nn.Module):
    """Pre-norm attention and MLP; `memory` is what is attended to (the tokens themselves when omitted)."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(width)
        self.norm_memory = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 2 * width)
        self.mlp_out = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """tokens `[B, Q, W]`, memory `[B, K, W]`, mask `[B, 1, 1, K]` (True = attend) -> `[B, Q, W]`."""
        batch, length, width = tokens.shape
        query = self.query(self.norm_query(tokens)).view(batch, length, self.heads, -1).transpose(1, 2)
        pairs = self.key_value(self.norm_memory(memory)).view(batch, memory.shape[1], 2, self.heads, -1)
        key, value = pairs.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.mlp_out(functional.gelu(self.mlp_in(self.norm_mlp(tokens))))


class NanoTextEncoder(nn.Module):
    """Sentences as token ids `[B, L]` (padded with `PAD_TOKEN`) -> conditioning `[B, 8, 192]`.

    `vocabulary` holds the known token ids in rising order; row 0 of the embedding stands for all others.
    """

    def __init__(self, vocabulary: Tensor) -> None:
        super().__init__()
        self.register_buffer("vocabulary", vocabulary.to(torch.int64))
        self.embedding = nn.Embedding(len(vocabulary) + 1, WIDTH)
        self.layers = nn.ModuleList(AttentionLayer() for _ in range(LAYERS))
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH))
        self.collect = AttentionLayer()
        self.norm = nn.LayerNorm(WIDTH)
        self.project = nn.Linear(WIDTH, CONTEXT_WIDTH)

    def forward(self, token_ids: Tensor) -> Tensor:
        rows = torch.searchsorted(self.vocabulary, token_ids).clamp_(max=len(self.vocabulary) - 1)
        known = self.vocabulary[rows] == token_ids
        tokens = self.embedding((rows + 1) * known)
        tokens = tokens + sinusoidal_positions(token_ids.shape[1], WIDTH, tokens.device).to(tokens.dtype)
        mask = (token_ids != PAD_TOKEN)[:, None, None, :]
        for layer in self.layers:
            tokens = layer(tokens, tokens, mask)
        queries = self.queries.expand(len(tokens), -1, -1)
        return self.project(self.norm(self.collect(queries, tokens, mask)))
