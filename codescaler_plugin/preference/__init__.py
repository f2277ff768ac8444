"""Rollouts in, execution-verified preference pairs out."""
