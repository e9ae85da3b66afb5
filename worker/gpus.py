"""The machine's NVIDIA GPUs at each scrape, through NVML; nothing where there are none."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import pynvml
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

_FIGURES: dict[str, tuple[str, Callable[[Any], float]]] = {
    "memory_used_bytes": (
        "Memory in use, by all processes.",
        lambda device: pynvml.nvmlDeviceGetMemoryInfo(device).used,
    ),
    "memory_size_bytes": ("Memory there is.", lambda device: pynvml.nvmlDeviceGetMemoryInfo(device).total),
    "utilization_ratio": (
        "Share of the last moments in which a kernel ran.",
        lambda device: pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
    ),
    "temperature_celsius": (
        "Of the chip.",
        lambda device: pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
    ),
}


class GpuCollector(Collector):
    """Memory, utilisation and temperature of every GPU of the machine, whichever of them the worker uses.

    Workers of one machine tell the same: dashboards take the maximum by `uuid`.
    """

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            self._names = [(handle, [_uuid(handle), pynvml.nvmlDeviceGetName(handle)]) for handle in handles]
        except pynvml.NVMLError as error:
            logger.debug("no metrics of GPUs: %s", error)
            self._names = []

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges; what a GPU does not tell, as a part of one may not tell how busy it is, is left out."""
        for name, (text, read) in _FIGURES.items():
            family = GaugeMetricFamily(f"timeripple_gpu_{name}", text, labels=["uuid", "name"])
            for device, labels in self._names:
                try:
                    family.add_metric(labels, read(device))
                except pynvml.NVMLError as error:
                    logger.debug("no %s of GPU %s: %s", name, labels[0], error)
            yield family


def _uuid(handle: Any) -> str:
    return str(pynvml.nvmlDeviceGetUUID(handle))
