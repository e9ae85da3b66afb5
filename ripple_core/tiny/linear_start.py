"""Starts the small Wan VAE as a linear codec, so that training only has to add the detail.

Trained from random weights, a VAE of this size spends thousands of steps on flat colours alone. Here the encoder
begins as a principal component analysis of 4x4-pixel, two-frame patches, and the decoder as the map from the
components back to each patch's mean colour. All residual branches begin at zero. The remaining non-linear parts pass
a signal unchanged by two identities: silu(x) - silu(-x) = x, and an RMS norm over a large constant channel is a
constant factor.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanResidualBlock
from torch import Tensor, nn

_COLOURS = 3
_PATCH = 4
_PIXELS = _PATCH * _PATCH * _COLOURS
# Trunk amplitude of the signals, and of the constant channel the norms see.
_SIGNAL = 0.2
_CONSTANT = 4.0
_POSTERIOR_STD = 0.05


@dataclass(frozen=True)
class LinearCodec:
    """The linear codec itself: principal components of patches, half whitened.

    A component of standard deviation s in the pixels has sqrt(s) in the latent, on average over the components 1. So
    what matters most in the picture is also strongest against the noise of the diffusion, and detail comes last.

    Attributes:
        project: ``[z, 2 frames * 48]``, from a patch's pixels (colour, y, x; less their mean) to its latent.
        mean: ``[48]``, mean pixels of a frame's patch.
    """

    project: Tensor
    mean: Tensor

    def encode(self, clips: Tensor) -> Tensor:
        """Latents ``[batch, z, 1 + frames // 2, y, x]`` of clips ``[batch, 3, 1 + even, height, width]`` in -1..1.

        What the VAE's encoder gives to first order, in a hundredth of the time. The first frame counts twice.
        """
        pairs = torch.cat([clips[:, :, :1], clips], dim=2)
        patches = nn.functional.pixel_unshuffle(pairs.transpose(1, 2), _PATCH) - self.mean.view(-1, 1, 1)
        return torch.einsum(
            "bptyx,zp->bztyx", patches.unflatten(1, (-1, 2)).flatten(2, 3).transpose(1, 2), self.project
        )


def start_linear(vae: AutoencoderKLWan, clips: Tensor) -> LinearCodec:
    """Overwrite the weights of a fresh VAE (see `architecture.build_vae`).

    Args:
        clips: example clips ``[batch, 3, frames, height, width]`` in -1..1 to fit the principal components on.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, WanResidualBlock):
                _zero(module.conv2)
            elif isinstance(module, WanAttentionBlock):
                _zero(module.proj)
        basis, mean, deviation = _principal_components(clips, vae.config.z_dim)
        unit = (deviation * deviation.mean()).sqrt()[:, None]
        _start_encoder(vae, basis / unit, mean)
        _start_decoder(vae, basis * unit, mean)
    return LinearCodec(basis / unit, mean)


def _principal_components(clips: Tensor, num_components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Basis ``[components, 2 frames * 48]``, mean ``[48]`` of a frame's patch, standard deviations ``[components]``."""
    folded = nn.functional.pixel_unshuffle(clips.transpose(1, 2)[:, 1:].flatten(0, 1), _PATCH)
    patches = folded.unflatten(0, (-1, 2)).permute(0, 3, 4, 1, 2).reshape(-1, 2 * _PIXELS)
    mean = patches.view(-1, 2, _PIXELS).mean((0, 1))
    centred = patches - mean.repeat(2)
    _, basis = torch.linalg.eigh(centred.T @ centred / len(centred))
    basis = basis.flip(1).T[:num_components]
    return basis, mean, (centred @ basis.T).std(0)


def _start_encoder(vae: AutoencoderKLWan, project: Tensor, mean: Tensor) -> None:
    encoder, num = vae.encoder, vae.config.z_dim
    first, second = project.split(_PIXELS, dim=1)
    half = _PATCH // 2
    width = encoder.conv_in.weight.shape[0]
    # 2x2 pixels of each position, channel order of diffusers' patchify: colour, x, y.
    _point(encoder.conv_in, torch.eye(_COLOURS * half * half), _constant_last(encoder.conv_in))

    # The strided convolution sees 2x2 such positions: the single frame's components, then what they leave over.
    both = first + second
    left_over = torch.linalg.svd(both, full_matrices=True)[2][num : width - 1]
    frame = torch.cat([both, left_over])
    down, time = encoder.down_blocks[1].resample[1], encoder.down_blocks[1].time_conv
    _zero(down)
    for y in range(half):
        for x in range(half):
            down.weight[: width - 1, : _COLOURS * half * half, y, x] = _pixels_at(frame, y, x)
    down.bias[: width - 1] = -frame @ mean
    down.bias[width - 1] = _CONSTANT
    # Two frames' components from those of each.
    restore = torch.linalg.pinv(frame)
    _zero(time)
    time.weight[:num, : width - 1, 1, 0, 0] = first @ restore
    time.weight[:num, : width - 1, 2, 0, 0] = second @ restore
    time.bias[width - 1] = _CONSTANT

    shortcut = torch.zeros(encoder.norm_out.gamma.shape[0], width)
    shortcut[:num, :num] = torch.eye(num) * _SIGNAL
    shortcut[num : 2 * num, :num] = -torch.eye(num) * _SIGNAL
    shortcut[-1, width - 1] = 1.0
    _point(encoder.down_blocks[2].conv_shortcut, shortcut)
    encoder.norm_out.gamma.fill_(_CONSTANT / shortcut.shape[0] ** 0.5)
    _point(encoder.conv_out, _difference(torch.eye(num), shortcut.shape[0]))
    _point(vae.quant_conv, torch.eye(num))
    vae.quant_conv.bias[num:] = 2 * torch.log(torch.tensor(_POSTERIOR_STD))


def _start_decoder(vae: AutoencoderKLWan, rebuild: Tensor, mean: Tensor) -> None:
    decoder, num = vae.decoder, vae.config.z_dim
    colour = rebuild.view(num, 2, _COLOURS, -1).mean(-1)
    first, second = colour[:, 0].T, colour[:, 1].T
    width = decoder.conv_in.weight.shape[0]
    _point(vae.post_quant_conv, torch.eye(num))

    # Trunk: 3 colours, then the components, the last channel constant.
    _point(decoder.conv_in, _SIGNAL * torch.cat([second, torch.eye(num)]), _constant_last(decoder.conv_in))
    time, up = decoder.up_blocks[0].upsamplers[0].time_conv, decoder.up_blocks[0].upsamplers[0].resample[1]
    earlier, later = torch.eye(width), torch.eye(width)
    earlier[:_COLOURS, :_COLOURS] = 0
    earlier[:_COLOURS, _COLOURS : _COLOURS + num] = first
    _point(time, torch.cat([earlier, later]))

    narrow = torch.zeros(up.weight.shape[0], width)
    narrow[:_COLOURS, :_COLOURS] = torch.eye(_COLOURS)
    narrow[_COLOURS : 2 * _COLOURS, :_COLOURS] = -torch.eye(_COLOURS)
    narrow[2 * _COLOURS : 2 * _COLOURS + num, _COLOURS : _COLOURS + num] = torch.eye(num)
    narrow[-1, -1] = 1.0
    _point(up, narrow)
    decoder.norm_out.gamma.fill_(_CONSTANT / narrow.shape[0] ** 0.5)
    per_colour = decoder.conv_out.weight.shape[0] // _COLOURS
    to_pixels = torch.eye(_COLOURS).repeat_interleave(per_colour, dim=0)
    _point(decoder.conv_out, _difference(to_pixels, narrow.shape[0]))
    decoder.conv_out.bias.copy_(to_pixels @ mean.view(_COLOURS, -1).mean(1))


def _pixels_at(frame: Tensor, y: int, x: int) -> Tensor:
    """Columns of the 4x4 patch (colour, y, x) that lie in one 2x2 position, in patchify's order (colour, x, y)."""
    half = _PATCH // 2
    grid = frame.view(-1, _COLOURS, half, half, half, half)[:, :, y, :, x, :]
    return grid.transpose(2, 3).reshape(len(frame), -1)


def _difference(matrix: Tensor, width: int) -> Tensor:
    """Reads signals stored as a pair (x, -x) on channels [0, n) and [n, 2n), undoing the trunk's amplitude."""
    wide = torch.zeros(matrix.shape[0], width)
    columns = matrix.shape[1]
    wide[:, :columns] = matrix / _SIGNAL
    wide[:, columns : 2 * columns] = -matrix / _SIGNAL
    return wide


def _constant_last(conv: Any) -> Tensor:
    bias = torch.zeros(conv.weight.shape[0])
    bias[-1] = _CONSTANT
    return bias


def _zero(conv: Any) -> None:
    conv.weight.zero_()
    conv.bias.zero_()


def _point(conv: Any, matrix: Tensor, bias: Tensor | None = None) -> None:
    """Make a convolution act on each position alone: the matrix at its central (and, in time, last) tap."""
    rows, columns = matrix.shape
    kernel = conv.weight.shape[2:]
    taps = tuple(size // 2 for size in kernel[-2:])
    tap = (*((kernel[0] - 1,) if len(kernel) == 3 else ()), *taps)
    _zero(conv)
    conv.weight[(slice(rows), slice(columns), *tap)] = matrix
    if bias is not None:
        conv.bias.copy_(bias)
