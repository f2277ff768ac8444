"""Evaluations of reward models and policies, one module each."""
