"""The first head tells a token's place from pure noise."""

import pytest
import torch

from ripple_core.tiny import architecture
from ripple_core.tiny.position_start import start_with_position
from ripple_core.tiny.train import ThinnedRope

# Features of the first head: three planes of t, two of y, two of x; the axis each must depend on.
AXES = (0, 0, 0, 1, 1, 2, 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_each_feature_follows_its_own_axis(stride: int) -> None:
    torch.manual_seed(0)
    transformer = architecture.build_transformer().eval()
    start_with_position(transformer)
    seen: list[torch.Tensor] = []
    transformer.blocks[0].attn1.to_out[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    noise = torch.randn(1, 8, 9, 32 // stride, 32 // stride)
    transformer.rope = ThinnedRope(transformer.rope, (1, stride, stride), (0, 0, 0))
    with torch.no_grad():
        transformer(noise, torch.tensor([999.0]), torch.zeros(1, 8, 64))
    features = seen[0][0, :, : len(AXES)].unflatten(0, (9, 16 // stride, 16 // stride))
    for index, axis in enumerate(AXES):
        feature = features[..., index]
        others = [other for other in range(3) if other != axis]
        profile = feature.mean(others, keepdim=True)
        assert profile.std() > 2 * (feature - profile).std()
        # From one end to the other it rises.
        ends = profile.flatten()
        assert ends[-3:].mean() > ends[:3].mean()
