"""How good is a policy, or a reward model? So far: what a policy writes, and what execution says of it."""
