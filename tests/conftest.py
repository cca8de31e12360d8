"""For all tests: hypothesis judges results, not the time they took on a machine that has other things to do."""

from hypothesis import settings

settings.register_profile("tailgate", deadline=None)
settings.load_profile("tailgate")
