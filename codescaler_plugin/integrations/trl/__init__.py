"""TRL: reward functions, the reward trainer, and the monitor."""
