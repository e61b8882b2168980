"""Settings for the whole suite."""

from hypothesis import HealthCheck, settings

# Machines are shared and slow at times; the same examples every run, so that a failure is one for everybody.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
