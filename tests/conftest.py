"""What all tests share: how hypothesis draws.

No deadline and no complaint about slow drawing: both are times on the wall, which a machine with other work exceeds at any
moment. Drawn from the test's own name: what failed fails again, whoever runs it, and nothing is kept between runs.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("minidl", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("minidl")
