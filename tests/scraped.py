"""What a scrape of a metrics page holds."""

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float:
        """Of the only sample with this name and at least these labels."""
        (found,) = self.values(name, **labels)
        return found

    def values(self, name: str, **labels: str) -> list[float]:
        samples = (sample for family in self.families.values() for sample in family.samples)
        return [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
