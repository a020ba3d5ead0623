"""What all tests share."""

import pytest
from hypothesis import settings

# A deadline for an example fails where kernels are compiled first, or the machine is busy.
settings.register_profile("histpert", deadline=None)
settings.load_profile("histpert")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that start a Ray take longest: where files are run beside each other, they come first."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
