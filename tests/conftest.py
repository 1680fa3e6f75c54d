"""Loads the fixtures, but not in pytest-xdist's controller: it runs no test, and would import torch for nothing."""


def pytest_configure(config):
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("common_fixtures")
