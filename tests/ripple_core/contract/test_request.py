"""The words of a request are those of the attention."""

from typing import get_args

from ripple_core.attention import MODES
from ripple_core.contract.metrics import ModeThatRan
from ripple_core.contract.request import ReuseMode


def test_the_contract_names_the_modes_that_attention_has() -> None:
    assert get_args(ReuseMode) == MODES
    assert set(get_args(ModeThatRan)) == set(MODES) - {"auto"}
