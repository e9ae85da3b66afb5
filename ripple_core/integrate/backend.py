"""A dispatch backend of our own for single attention modules of diffusers.

The stock processors stay: they project, normalise and rotate as always (LoRA, quantisation and fused projections
included) and then call diffusers' dispatcher, which finds our function under the backend named on that processor
alone. `set_attention_backend` is not used, because it would change cross-attention and every other model too.
"""

from collections.abc import Callable
from typing import Any

from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor


def register_backend(name: str, function: Callable[..., Tensor]) -> AttentionBackendName:
    """Make the dispatcher know a function; returns what to set as a processor's `_attention_backend`."""
    member: Any = str.__new__(AttentionBackendName, name)
    member._name_ = name.upper()
    member._value_ = name
    _AttentionBackendRegistry.register(member)(function)
    return member


def unregister_backend(backend: AttentionBackendName) -> None:
    """Forget a registered function."""
    for table in ("_backends", "_constraints", "_supported_arg_names"):
        getattr(_AttentionBackendRegistry, table).pop(backend, None)
