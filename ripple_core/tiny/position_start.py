"""Lets an untrained Wan transformer know where a token lies, which it otherwise learns very late.

RoPE tells relative places only, and the tokens of pure noise are all alike, so nothing says where the edges of the
video are: objects go astray and left is no different from right. But one head can find out. Let n_j be a component
of token j's noise, the head's value be n_j, and its score n_j sin(w (x_j - x_i)), which RoPE makes of a constant
query and a key along n_j. To first order its output is then mean_j n_j^2 sin(w (x_j - x_i)): a function of x_i alone,
because noise is uncorrelated with itself elsewhere. One component and one frequency for each of a few rotary planes
of t, y and x give the head of the first block all three coordinates, on any subset of tokens.

The head stays as it is set here: early in training nothing asks for the place yet, and the steps taken meanwhile
would wash it away. So do the patch embedding, which it reads, and the block's other queries and keys, which share a
norm with its own.
"""

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

# Rotary planes of t, y and x whose frequencies (0.5 to 0.06 radians a token) tell places in a grid of 9x16x16.
_PLANES = ((1, 2, 3), (2, 3), (2, 3))
# Constant query and key per unit of noise, both in units of the norm's output; larger ones leave the linear regime.
_STRENGTH = 3.0
_VALUE = 20.0


@torch.no_grad()
def start_with_position(transformer: WanTransformer3DModel) -> None:
    """Overwrite and freeze the first head of the first block of a freshly initialised transformer."""
    attention = transformer.blocks[0].attn1
    head_dim = attention.inner_dim // attention.heads
    head = slice(0, head_dim)
    noise, scale = _noise_components(transformer), _norm_input_scale(attention.to_k.weight)
    planes = _planes_of_axes(head_dim)
    for projection in (attention.to_q, attention.to_k, attention.to_v):
        projection.weight[head] = 0
        projection.bias[head] = 0
    for component, plane in enumerate(planes):
        attention.to_q.bias[2 * plane] = _STRENGTH * scale
        attention.to_k.weight[2 * plane + 1] = _STRENGTH * scale * noise[component]
        attention.to_v.weight[component] = _VALUE * noise[component]
    for module in (transformer.patch_embedding, attention.to_q, attention.to_k, attention.norm_q, attention.norm_k):
        module.requires_grad_(False)
    for parameter in attention.to_v.parameters():
        trained = torch.ones_like(parameter)
        trained[head] = 0
        parameter.register_hook(trained.mul)


def _planes_of_axes(head_dim: int) -> list[int]:
    """Indices of the chosen rotary planes within a head, whose channels diffusers splits into t, y, x."""
    side = 2 * (head_dim // 6)
    starts = (0, (head_dim - 2 * side) // 2, (head_dim - side) // 2)
    return [start + plane for start, planes in zip(starts, _PLANES, strict=True) for plane in planes]


def _noise_components(transformer: WanTransformer3DModel) -> Tensor:
    """Rows that read the components of a token's noise, each of variance 1, off the normed input of the first block."""
    embedding = transformer.patch_embedding.weight.flatten(1)
    rows = torch.linalg.pinv(embedding)
    return rows * embedding.square().sum(1).mean().sqrt()


def _norm_input_scale(weight: Tensor) -> float:
    """Root mean square of a projection of normed input: what the norm of queries and keys divides by."""
    return float(weight.square().sum(1).mean().sqrt())
