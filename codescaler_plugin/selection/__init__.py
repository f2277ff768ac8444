"""Test-time scaling: choose the best of many candidates, without tests or with few."""
