"""The network: Whisper's architecture at kiosk size, with an auxiliary CTC head that exists in training only.

Default initialisation does not learn: convolutions start after Kaiming, matrices at 1/sqrt(inputs).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MELS = 80
FRAMES_A_POSITION = 2


@dataclass(frozen=True)
class Shape:
    vocabulary: int
    width: int = 192
    heads: int = 6
    encoder_layers: int = 4
    decoder_layers: int = 2
    hidden: int = 768
    positions: int = 400  # of the encoder: 8 s
    text_positions: int = 448  # as faster-whisper assumes
    symbols: int = 64  # of the CTC head

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's fixed positions of the encoder."""
    scale = math.log(10000) / (width // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-scale * torch.arange(width // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, causal: bool = False) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        # Written out: the fused one's backward pass takes half of a training step on a CPU.
        scores = split(self.query(x)) @ split(self.key(source)).transpose(-1, -2) * (x.shape[-1] / self.heads) ** -0.5
        if causal:
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -1e4)
        mixed = scores.float().softmax(-1).to(scores.dtype) @ split(self.value(source))
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, shape: Shape, *, decoder: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.attention_norm = nn.LayerNorm(shape.width)
        self.attention = Attention(shape.width, shape.heads)
        if decoder:
            self.cross_norm = nn.LayerNorm(shape.width)
            self.cross = Attention(shape.width, shape.heads)
        self.hidden_norm = nn.LayerNorm(shape.width)
        self.up = nn.Linear(shape.width, shape.hidden)
        self.down = nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        y = self.attention_norm(x)
        x = x + self.attention(y, y, causal=self.decoder)
        if source is not None:
            x = x + self.cross(self.cross_norm(x), source)
        return x + self.down(F.gelu(self.up(self.hidden_norm(x))))


class Model(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.conv1 = nn.Conv1d(MELS, shape.width, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2, padding=1)
        self.register_buffer("places", sinusoids(shape.positions, shape.width))
        self.encoder = nn.ModuleList(Block(shape, decoder=False) for _ in range(shape.encoder_layers))
        self.encoder_norm = nn.LayerNorm(shape.width)
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Parameter(0.1 * sinusoids(shape.text_positions, shape.width))
        self.decoder = nn.ModuleList(Block(shape, decoder=True) for _ in range(shape.decoder_layers))
        self.decoder_norm = nn.LayerNorm(shape.width)
        self.ctc = nn.Linear(shape.width, shape.symbols)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if isinstance(module, nn.Conv1d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)

    def listen(self, mel: Tensor) -> Tensor:
        """Frames (batch, 80, n) to positions (batch, n / 2, width)."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.places[: x.shape[1]]
        for block in self.encoder:
            x = block(x)
        return self.encoder_norm(x)

    def write(self, tokens: Tensor, heard: Tensor) -> Tensor:
        """Logits of the token after each token."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.decoder:
            x = block(x, heard)
        return F.linear(self.decoder_norm(x), self.embedding.weight)

    def forward(self, mel: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        heard = self.listen(mel)
        return self.write(tokens, heard), self.ctc(heard)
