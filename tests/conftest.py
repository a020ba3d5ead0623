"""What all tests share."""

from hypothesis import settings

# A deadline for an example fails where kernels are compiled first, or the machine is busy.
settings.register_profile("histpert", deadline=None)
settings.load_profile("histpert")
