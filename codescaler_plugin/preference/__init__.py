"""Rollouts in, execution-verified preference pairs out. So far: the sandbox that gives verdicts."""
