"""Runs model-written programs against the tests of their problems, on this machine or by a service."""
