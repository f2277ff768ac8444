"""OpenRLHF: the reward file and the agent."""
