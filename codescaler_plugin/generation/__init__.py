"""Completions of a policy, from transformers in this process or from an OpenAI-compatible server."""
