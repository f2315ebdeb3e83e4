"""The model, a small llama (RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings), and Muon.

Training packs several passages, each with several questions, into one row; a block mask keeps them apart and positions
restart. `forward` also returns queries and keys of four heads (`WATCHED`), and training rewards them for looking at the
right place: two in the layer before the last two, for finding what the question names and for binding a value to the
thing that it belongs to, and one in each of the last two, for finding the answer. The exported model is a plain llama
and knows nothing of that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WATCHED = ("link", "bind", "answer", "answer")


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 8192
    width: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    hidden: int = 512
    context: int = 2048
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions over neighbouring pairs, as llama.cpp computes them."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)


class Layer(nn.Module):
    def __init__(self, shape: Shape, watch: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.watch = watch
        kv = shape.kv_heads * shape.head_width
        self.attention_norm, self.hidden_norm = Norm(shape.width, shape.epsilon), Norm(shape.width, shape.epsilon)
        self.query, self.key, self.value = (nn.Linear(shape.width, n, bias=False) for n in (shape.width, kv, kv))
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.gate, self.up = (
            nn.Linear(shape.width, shape.hidden, bias=False),
            nn.Linear(shape.width, shape.hidden, bias=False),
        )
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Also returns the rotated queries and keys of the watched heads, for the supervision of attention."""
        shape = self.shape
        batch, length, _ = x.shape
        h = self.attention_norm(x)
        split = lambda y: y.view(batch, length, -1, shape.head_width).transpose(1, 2)  # noqa: E731
        q, k, v = rotate(split(self.query(h)), cos, sin), rotate(split(self.key(h)), cos, sin), split(self.value(h))
        repeat = shape.heads // shape.kv_heads
        mixed = F.scaled_dot_product_attention(
            q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1), attn_mask=mask
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, shape.width))
        h = self.hidden_norm(x)
        return (
            x + self.down(F.silu(self.gate(h)) * self.up(h)),
            [q[:, n] for n in self.watch],
            [k[:, n // repeat] for n in self.watch],
        )


class Model(nn.Module):
    def __init__(self, shape: Shape, meaning: Tensor) -> None:
        """`meaning`: (vocabulary, n), what is known of the tokens before training."""
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.register_buffer("meaning", meaning)
        self.projection = nn.Parameter(torch.randn(meaning.shape[1], shape.width) * 0.03)
        self.blocks = nn.ModuleList(
            Layer(shape, (0,) if n >= shape.layers - 2 else (shape.heads // 2, shape.heads - 1))
            for n in range(shape.layers)
        )
        self.norm = Norm(shape.width, shape.epsilon)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, parameter in self.blocks.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
                if name.endswith(("out.weight", "down.weight")):
                    parameter.data.mul_(0.3)
        frequencies = shape.rope_base ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
        angles = torch.arange(shape.context).float()[:, None] * frequencies
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def table(self) -> Tensor:
        """The token embeddings, (vocabulary, width)."""
        return self.embedding.weight + self.meaning @ self.projection

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Final hidden states, token embeddings, and (queries, keys) of the watched heads: see WATCHED."""
        table = self.table()
        x = F.embedding(tokens, table)
        cos, sin = self.cos[positions][:, None].to(x.dtype), self.sin[positions][:, None].to(x.dtype)
        watched = []
        for block in self.blocks:
            x, q, k = block(x, cos, sin, mask)
            watched += zip(q, k, strict=True)
        return self.norm(x), table, watched[-4:]


def orthogonal(update: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration: the nearest (semi-)orthogonal matrices of a stack."""
    x = update.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; matrices of one shape are treated together."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, some in shapes.items():
                updates = []
                for parameter in some:
                    buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(buffer, group["momentum"]))
                moved = orthogonal(torch.stack(updates))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(some, moved, strict=True):
                    parameter.sub_(update, alpha=scale)
