"""The sandbox's inner side: runs in processes of its own, on the standard library alone, and imports nothing of ours.

`zygote` is forked per candidate; `candidate` serves calls to model-written code; `judge` runs a problem's own test
source against it. The two talk only in the data of `wire`.
"""
