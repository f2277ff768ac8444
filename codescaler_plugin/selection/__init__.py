"""Test-time scaling: the best of many candidates without tests, with few tests, and when to stop sampling.

`ranking` orders the candidates of a problem by their scores; `testing` runs tests in that order, only where scores do
not suffice; `planning` says which of the two pays; `sampling` takes candidates from a generator until one more is not
worth its cost.
"""
