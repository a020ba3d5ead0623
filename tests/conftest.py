"""What all tests share."""

import pytest
from hypothesis import settings

# A deadline for an example fails where kernels are compiled first, or the machine is busy.
settings.register_profile("histpert", deadline=None)
settings.load_profile("histpert")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run beside each other, those of a file stay together, and so do those that name a group.

    Those that start a Ray take longest, and so come first.
    """
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
