"""The counter's sums, by hand."""

import pytest
import torch

from ripple_core.attention import Executed, SavingsCounter

SHAPE = (2, 10, 3, 4)  # batch, tokens, heads, head_dim
PRODUCT = 2 * 2 * 10 * 10 * 4  # FLOPs of QK^T of one head


def executed(scores: list[float], values: list[float]) -> Executed:
    """The same for both items."""
    return Executed(torch.tensor([scores] * 2), torch.tensor([values] * 2))


def test_dense_calls_save_nothing() -> None:
    counter = SavingsCounter("dense", 0.0)
    counter.record(0, 0, SHAPE)
    counter.record(0, 1, SHAPE)
    report = counter.report()
    assert report.total.dense_flops == report.total.executed_flops == 2 * 2 * 3 * PRODUCT
    assert (report.savings, report.score_savings, report.calls, report.tokens) == (0, 0, 2, 10)
    assert report.by_layer_and_head == {0: (0, 0, 0), 1: (0, 0, 0)}


def test_scores_values_heads_layers_and_steps_are_kept_apart() -> None:
    counter = SavingsCounter("some", 0.5)
    counter.record(0, 0, SHAPE)
    counter.record(1, 0, SHAPE, executed([1, 0.5, 0], [1, 1, 0.5]))
    counter.record(1, 1, SHAPE, executed([0.5] * 3, [1] * 3))
    report = counter.report()
    dense = 3 * 2 * 3 * PRODUCT
    assert report.total.dense_flops == dense
    assert report.total.executed_flops == dense - (0.5 + 1 + 0.5 + 1.5) * PRODUCT
    assert report.scores.savings == pytest.approx((0.5 + 1 + 1.5) / 9)
    assert report.by_step[0].savings == 0
    assert report.by_step[1].savings == pytest.approx(3.5 / 12)
    assert report.by_layer[1].savings == pytest.approx(1.5 / 6)
    # Over layer 0's two calls each head takes four products.
    assert report.by_layer_and_head[0] == pytest.approx((0, 0.5 / 4, 1.5 / 4))
    assert report.dense_steps == (0,)


def test_a_method_that_costs_more_than_dense_saves_less_than_nothing() -> None:
    counter = SavingsCounter("some", 0.5)
    counter.record(0, 0, SHAPE, executed([1.25] * 3, [1] * 3))
    assert counter.report().savings == pytest.approx(-0.125)


def test_fewer_keys_than_queries_and_calls_left_out() -> None:
    counter = SavingsCounter("channel", 0.5)
    batch, tokens, heads, head_dim = SHAPE
    assert counter.record(0, 0, SHAPE, num_keys=5) == 4 * batch * tokens * 5 * heads * head_dim
    counter.record_skipped(counter.record(1, 0, SHAPE, executed([0.5] * heads, [1] * heads), num_keys=5))
    report = counter.report()
    assert report.total.dense_flops == 2 * report.skipped_flops
    assert report.savings == pytest.approx(1 / 8)
    # A quarter of one call of three saved by reuse, and one call of three left out.
    assert report.savings_with_step_cache == pytest.approx((1 / 4 + 1) / 3)


def test_every_item_of_a_batch_is_counted_on_its_own() -> None:
    """As if it had run alone; together they are the whole."""
    together = SavingsCounter("some", 0.5)
    alone = [SavingsCounter("some", 0.5) for _ in range(2)]
    scores, values = torch.tensor([[1, 0.5, 0], [0.25, 1, 1]]), torch.tensor([[1, 1, 0.5], [0.5, 1, 0.25]])
    reasons: list[dict[str, int]] = [{"little_to_save": 1}, {}]
    for counter, items in ((together, slice(0, 2)), (alone[0], slice(0, 1)), (alone[1], slice(1, 2))):
        shape = (items.stop - items.start, *SHAPE[1:])
        counter.record(0, 0, shape)
        counter.record(1, 0, shape, Executed(scores[items], values[items], reasons[items]))
        counter.record_fallback("attention_mask")
    assert [together.report(item) for item in range(2)] == [counter.report() for counter in alone]
    whole = together.report()
    assert whole.total.executed_flops == sum(counter.report().total.executed_flops for counter in alone)
    assert (whole.calls, whole.dense_heads, whole.fallbacks) == (2, {"little_to_save": 1}, {"attention_mask": 1})


def test_items_keep_their_numbers_when_others_are_left_out() -> None:
    counter = SavingsCounter("some", 0.5)
    counter.record(0, 0, (4, 10, 3, 4))
    counter.keep_places([1, 3])
    counter.record(1, 0, SHAPE)
    counter.keep_places([1])
    counter.record(2, 0, (1, 10, 3, 4), num_keys=5)
    assert [list(counter.report(item).by_step) for item in range(4)] == [[0], [0, 1], [0], [0, 1, 2]]
    assert counter.report(3).by_step[2].dense_flops == counter.report(3).by_step[1].dense_flops // 2


def test_a_part_of_a_batch_is_counted_at_its_place() -> None:
    counter = SavingsCounter("some", 0.5)
    for place, num_keys in enumerate((10, 5)):
        counter.record(0, 0, (1, 10, 3, 4), num_keys=num_keys, first_place=place)
    one, other = (counter.report(item).total.dense_flops for item in range(2))
    assert one == 2 * other
