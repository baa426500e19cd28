"""The catalogs for readers say what the code says."""

from prometheus_client.metrics import MetricWrapperBase

from deploy.contracts.catalogs import BEGIN, CONFIGURATION, END, METRICS, README, configuration_page, metrics_page, readme
from shared.metrics import metrics
from shared.settings import Settings


def test_the_catalog_of_metrics_is_that_of_the_code() -> None:
    assert METRICS.read_text() == metrics_page(), "write it with: make docs"


def test_every_metric_says_its_meaning_and_its_unit() -> None:
    units = ("_total", "_seconds", "_bytes", "_now", "_alarms", "_ratio")
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            described = next(iter(metric.describe()))
            name = described.name + ("_total" if described.type == "counter" else "")
            assert name.startswith("mesh_")
            assert name.endswith(units), name
            assert len(described.documentation) > 10


def test_the_settings_are_those_of_the_code() -> None:
    assert CONFIGURATION.read_text() == configuration_page(), "write it with: make docs"


def test_the_settings_in_the_readme_are_those_of_the_code() -> None:
    text = README.read_text()
    assert BEGIN in text
    assert END in text
    assert text == readme(text), "write it with: make docs"


def test_every_setting_says_what_it_is_for() -> None:
    for line in configuration_page().splitlines():
        if line.startswith("| `"):
            assert line.split(" | ")[-1].strip(" |"), line
    assert all(field.description for field in Settings.model_fields.values())
