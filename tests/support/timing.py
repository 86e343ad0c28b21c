"""The one constant that every test's deadline comes from."""

import os

#: Seconds within which anything that a test waits for must happen, however busy the machine.
TIMEOUT = 20.0 * float(os.environ.get("THREADKO_TEST_TIMEOUT_SCALE", "1"))
