"""What `ripple bench attention` prints."""

from ripple_core.bench.attention_speed import SpeedRow
from ripple_core.cli.show import console

_HEADER = "inputs     tokens  heads  dim  saved  error  dense ms  ours ms  ratio  memory"


def print_speed_header() -> None:
    """The names of the columns."""
    console.print("Whole-attention savings, relative error of the output, median time of a call, peak memory ratio.")
    console.print(_HEADER, style="bold")


def print_speed_row(row: SpeedRow) -> None:
    """One setting."""
    memory = (
        f"{row.ours_peak_bytes / row.dense_peak_bytes:6.2f}" if row.ours_peak_bytes and row.dense_peak_bytes else ""
    )
    console.print(
        f"{row.source:<9}{row.tokens:8}{row.heads:7}{row.head_dim:5}{row.savings:7.1%}{row.relative_error:7.3f}"
        f"{row.dense_ms:10.0f}{row.ours_ms:9.0f}{row.ratio:7.2f}  {memory}",
        highlight=False,
    )
