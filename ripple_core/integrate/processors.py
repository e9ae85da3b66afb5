"""Puts our attention into a module's stock processor, and takes it out again.

The stock processors stay: they project, normalise and rotate as always (LoRA, quantisation and fused projections
included). Only the class of the processor changes, to a subclass made here:

- A processor that calls diffusers' dispatcher runs with our backend as its `_attention_backend`, and what it hands over
  as its `_parallel_config` is a `Site`: the one argument by which a backend can learn whose call it is.
  `set_attention_backend` is not used, because it would change cross-attention and every other model too.
- A processor that calls `F.scaled_dot_product_attention` runs with that one function redirected.

Under torch.compile the dispatcher's backend is one custom op for all layers and steps: which layer calls is the value
of a tensor, so the number of graphs depends on neither.
"""

import functools
import itertools
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    dispatch_attention_fn,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ripple_core.integrate.families import Kernel

_BACKEND_NAME = "timeripple"
_numbers = itertools.count()
_sites: "WeakValueDictionary[int, Site]" = WeakValueDictionary()


class Attend(Protocol):
    """Takes a processor's attention call; tensors are ``[batch, tokens, heads, head_dim]``."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """The output, of the query's shape. Options are the remaining arguments of the stock kernel."""


class Site:
    """One attention module whose calls come to us."""

    def __init__(self, attention: Any, kernel: Kernel, attend: Attend) -> None:
        self.processor = attention.processor
        self.attend = attend
        self.backend = _register_backend()
        self.number = torch.tensor(next(_numbers))
        self._kernel = kernel
        self._stock_class = self.processor.__class__
        _sites[int(self.number)] = self
        vars(self.processor)["timeripple_site"] = self
        self.processor.__class__ = _class_for(self._stock_class, kernel)
        if kernel == "dispatcher":
            self.caller = object.__new__(self.processor.timeripple_caller_class)
            self.caller.__dict__ = vars(self.processor)

    @property
    def parallel_config(self) -> Any:
        """diffusers' ParallelConfig for this module, None when it runs on one device."""
        return getattr(self.processor, "_parallel_config", None)

    def stock_attention(self, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """What the processor would have called without us."""
        if self._kernel == "dispatcher":
            return dispatch_attention_fn(query, key, value, backend=self.processor._attention_backend, **options)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, **options).transpose(1, 2)

    def remove(self) -> None:
        """Make the processor what it was."""
        self.processor.__class__ = self._stock_class
        vars(self.processor).pop("timeripple_site", None)


def is_changed(processor: Any) -> bool:
    """Whether a processor's calls come to us already."""
    return "timeripple_site" in vars(processor)


@functools.cache
def _class_for(stock: Any, kernel: Kernel) -> type:
    return _class_for_dispatcher(stock) if kernel == "dispatcher" else _class_for_sdpa(stock)


def _class_for_dispatcher(stock: Any) -> type:
    """A subclass whose dispatched calls reach our backend.

    The stock method runs on a second object with the same attributes but those two, so that diffusers and users read
    and change the settings of the stock kernel on the first.
    """
    caller_class: Any = type(
        stock.__name__,
        (stock,),
        {
            "_attention_backend": property(lambda caller: caller.timeripple_site.backend),
            "_parallel_config": property(lambda caller: caller.timeripple_site),
        },
    )

    # The signature must stay: Attention.forward hands over only the arguments that it names, RoPE among them.
    @functools.wraps(stock.__call__)
    def call(processor: Any, *args: Any, **kwargs: Any) -> Any:
        return stock.__call__(processor.timeripple_site.caller, *args, **kwargs)

    return type(stock.__name__, (stock,), {"__call__": call, "timeripple_caller_class": caller_class})


def _class_for_sdpa(stock: Any) -> type:
    """A subclass that runs with `F.scaled_dot_product_attention` redirected."""

    # As above.
    @functools.wraps(stock.__call__)
    def call(processor: Any, *args: Any, **kwargs: Any) -> Any:
        return torch.compiler.disable(run)(processor, args, kwargs)

    def run(processor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with _RedirectSdpa(processor.timeripple_site) as redirect:
            result = stock.__call__(processor, *args, **kwargs)
        if not redirect.calls:
            raise ValueError(f"{stock.__name__} attends with another backend than torch's own; use backend 'native'")
        return result

    return type(stock.__name__, (stock,), {"__call__": call})


class _RedirectSdpa(TorchFunctionMode):
    """Sends this thread's calls of `F.scaled_dot_product_attention` to a site."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        return self._redirected(*args, **(kwargs or {}))

    def _redirected(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Tensors are ``[batch, heads, tokens, head_dim]`` here; every family passes the rest by name."""
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return self._site.attend(query, key, value, options).transpose(1, 2)


@torch.library.custom_op("timeripple::attend", mutates_args=())
def _attend_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    site_number: Tensor,
) -> Tensor:
    """A compiled graph's call of our attention; site_number is on the CPU, so reading it waits for nothing."""
    out = _call_site(_sites[int(site_number)], query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return out.clone(memory_format=torch.contiguous_format)


@_attend_op.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape)


# Named arguments: the dispatcher hands over only those it finds in the signature. Dropout it always sets to 0.
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    _parallel_config: Any = None,
) -> Tensor:
    if torch.compiler.is_compiling():
        number = _parallel_config.number
        return _attend_op(query, key, value, attn_mask, is_causal, scale, enable_gqa, number)
    return _call_site(_parallel_config, query, key, value, attn_mask, is_causal, scale, enable_gqa)


def _call_site(
    site: Site,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    options = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    return site.attend(query, key, value, options)


@functools.cache
def _register_backend() -> AttentionBackendName:
    """Make the dispatcher know `_attend`, once; nothing but our processors refers to it."""
    member: Any = str.__new__(AttentionBackendName, _BACKEND_NAME)
    member._name_, member._value_ = _BACKEND_NAME.upper(), _BACKEND_NAME
    _AttentionBackendRegistry.register(member, supports_context_parallel=True)(_attend)
    return member
