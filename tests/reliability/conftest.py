"""Figures that the tests here measure, printed as a table after the run (`make reliability`, one process)."""

import pytest

_FIGURES: dict[str, object] = {}


@pytest.fixture
def figure():
    """figure(name, value): puts a line into the table."""
    return _FIGURES.__setitem__


def pytest_terminal_summary(terminalreporter):
    if _FIGURES:
        width = max(map(len, _FIGURES))
        terminalreporter.section("figures")
        for name, value in sorted(_FIGURES.items()):
            terminalreporter.write_line(f"{name:<{width}}  {value}")
