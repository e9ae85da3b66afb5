"""The machine's NVIDIA GPUs at each scrape, through NVML; nothing where there are none."""

import logging
from collections.abc import Iterable

import pynvml
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)


class GpuCollector(Collector):
    """Memory, utilisation and temperature of every GPU of the machine, whichever of them the worker uses.

    Workers of one machine tell the same: dashboards take the maximum by `uuid`.
    """

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as error:
            logger.debug("no metrics of GPUs: %s", error)
            self._devices = []

    @property
    def num_gpus(self) -> int:
        """How many there are."""
        return len(self._devices)

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges; a GPU that does not answer is left out."""
        labels = ["uuid", "name"]
        used, size, busy, heat = (
            GaugeMetricFamily(f"timeripple_gpu_{name}", text, labels=labels)
            for name, text in (
                ("memory_used_bytes", "Memory in use, by all processes."),
                ("memory_size_bytes", "Memory there is."),
                ("utilization_ratio", "Share of the last moments in which a kernel ran."),
                ("temperature_celsius", "Of the chip."),
            )
        )
        for device in self._devices:
            try:
                names = [pynvml.nvmlDeviceGetUUID(device), pynvml.nvmlDeviceGetName(device)]
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                rates = pynvml.nvmlDeviceGetUtilizationRates(device)
                degrees = pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)
            except pynvml.NVMLError as error:
                logger.warning("a GPU does not tell how it is: %s", error)
                continue
            used.add_metric(names, memory.used)
            size.add_metric(names, memory.total)
            busy.add_metric(names, rates.gpu / 100)
            heat.add_metric(names, degrees)
        return [used, size, busy, heat]
