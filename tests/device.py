"""The device on which the tests of the network run: cpu, unless `pytest --device` says otherwise."""

import os

VARIABLE = "SEER_TEST_DEVICE"
DEVICE = os.environ.get(VARIABLE, "cpu")
