"""Stands in for NVIDIA's management library on machines without its driver: one GPU."""

from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    pass


def nvmlInit() -> None:
    pass


def nvmlDeviceGetCount() -> int:
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetUUID(_device: int) -> str:
    return "GPU-0"


def nvmlDeviceGetName(_device: int) -> str:
    return "stand-in"


def nvmlDeviceGetMemoryInfo(_device: int) -> SimpleNamespace:
    return SimpleNamespace(used=20 * 2**30, total=80 * 2**30)


def nvmlDeviceGetUtilizationRates(_device: int) -> SimpleNamespace:
    return SimpleNamespace(gpu=75)


def nvmlDeviceGetTemperature(_device: int, _sensor: int) -> int:
    return 61
