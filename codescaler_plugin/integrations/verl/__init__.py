"""verl: the reward file."""

FILES = {"verl": ("reward.py", 'reward.custom_reward_function.path="$(codescaler where verl)"')}
