"""What all tests share."""

import pytest
from hypothesis import settings

# A deadline for an example fails where kernels are compiled first, or the machine is busy.
settings.register_profile("histpert", deadline=None)
settings.load_profile("histpert")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run beside each other, those of a file stay together, and so do all that start a Ray.

    Heads of Ray on one machine take each other's ports. They take longest, and so come first.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.get_closest_marker("ray") else str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
