"""Test-time scaling: choose the best of many candidates, without tests or with few.

`ranking` orders the candidates of a problem by their scores. `cascade` runs tests in that order where the scores do
not decide. `calibration` turns a margin of scores into a probability, and `planning` compares the costs of the
strategies. `adaptive` takes candidates from a generator until one more is not expected to pay.
"""
