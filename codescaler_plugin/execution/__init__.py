"""Runs model-written programs against the tests of their problems, on this machine or by a service.

Start at `sandbox`: its head says how a run goes and what is not held back. `executor` has the protocol that others
implement.
"""
