"""Completions of a policy, from transformers or from an OpenAI-compatible server."""
