"""Evaluations of reward models and of policies, one file each."""
