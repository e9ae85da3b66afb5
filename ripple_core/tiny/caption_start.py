"""Lets an untrained Wan transformer hear its caption, which padding otherwise drowns.

Prompts are padded to 512 tokens, of which a dozen are words: attention without preference gives each word a weight of
1/512. Here queries and keys start with one constant vector in common, which words have and padding (a zero vector)
lacks, so that cross-attention starts as the mean over the words alone. Biases that would give padding a key are frozen
at zero: the norm of keys would blow up the smallest one.

The first block adds this mean of words to every token, as strong as the token's own content, and stays as it is set
here. Otherwise words that take long to be of use (motions, shapes) are unlearned as noise in the first fifty steps.

A mean of words knows no order, so a text encoder that starts without any never tells upper from lower object. Heads
that look at the words before, at those after, and at both neighbours give it one; they are free to change.
"""

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from transformers import UMT5EncoderModel

# Part of the constant in queries and keys, in units of the rest's root mean square.
_STRENGTH = 2.0
# What words of the caption add to the residual stream in the first block, were they its only one (root mean square).
_VALUE = 3.0
# Score that keeps a head of the text encoder off a word, and how much louder than at random it says what it sees.
_FORBIDDEN = -8.0
_CONTEXT_GAIN = 2.0


@torch.no_grad()
def start_with_word_order(text_encoder: UMT5EncoderModel) -> None:
    """Overwrite the relative position biases of a freshly initialised text encoder of four heads."""
    for block in text_encoder.encoder.block:
        attention = block.layer[0].SelfAttention
        # Rows: keys at distance 0, 1, 2, ... before the query, then the same after it.
        after = attention.relative_attention_num_buckets // 2
        bias = torch.full_like(attention.relative_attention_bias.weight, _FORBIDDEN)
        for head, rows in enumerate((slice(1, after), slice(after, None), 1, after + 1)):
            bias[rows, head] = 0
        attention.relative_attention_bias.weight.copy_(bias)
        attention.o.weight[:, : 2 * attention.key_value_proj_dim] *= _CONTEXT_GAIN


@torch.no_grad()
def start_with_captions(transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel, words: Tensor) -> None:
    """Overwrite parts of a freshly initialised transformer, and freeze the way of the words to its first block.

    Args:
        text_encoder: its embeddings and last norm are frozen, too.
        words: what it gives for typical words ``[words, text_dim]``.
    """
    embedder = transformer.condition_embedder.text_embedder
    for layer in (embedder.linear_1, embedder.linear_2):
        layer.bias.zero_().requires_grad_(False)
    embedded = embedder(words)
    mean = embedded.mean(0)
    mean_square = mean.square().sum()
    for block in transformer.blocks:
        attention = block.attn2
        constant = torch.randint(2, attention.to_q.bias.shape) * 2.0 - 1
        weight = attention.to_k.weight
        weight -= torch.outer(weight @ mean, mean) / mean_square
        size = (embedded @ weight.T).square().mean().sqrt()
        weight += torch.outer(_STRENGTH * size * constant, mean) / mean_square
        attention.to_k.bias.zero_().requires_grad_(False)
        attention.to_q.bias.copy_(_STRENGTH * attention.to_q.weight.square().sum(1).mean().sqrt() * constant)
    attention = transformer.blocks[0].attn2
    attention.to_q.weight.zero_()
    attention.to_v.weight *= _VALUE / attention.to_out[0](attention.to_v(embedded)).std(0).square().mean().sqrt()
    attention.to_v.bias.copy_(-attention.to_v.weight @ mean)
    for module in (embedder, attention, text_encoder.shared, text_encoder.encoder.final_layer_norm):
        module.requires_grad_(False)
