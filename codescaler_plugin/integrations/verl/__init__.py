"""verl: the reward file."""
