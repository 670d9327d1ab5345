"""What the tests of serving share."""

from __future__ import annotations

import pytest

from services.serving.tests.test_serving_live import network
from tailrace_serving.testing import rain_spec


@pytest.fixture
def small_network() -> bytes:
    """An ONNX graph for the rain spec."""
    return network(rain_spec(), 1.0)
