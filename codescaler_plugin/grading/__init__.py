"""Tests decide whether a program is right. Runs in processes of the sandbox, on the standard library alone.

This room does not isolate anything; `isolation` does, and `execution` puts both together.
"""
