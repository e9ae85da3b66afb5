"""The HTTP API. It imports `ripple_core.contract` alone and never torch."""
