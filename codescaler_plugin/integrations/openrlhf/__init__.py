"""OpenRLHF: the reward file and the agent."""

_FLAG = '{} "$(codescaler where {})"\nUp to OpenRLHF 0.10.1: {}'

FILES = {
    "openrlhf": ("reward.py", _FLAG.format("--reward.remote_url", "openrlhf", "--remote_rm_url")),
    "openrlhf-agent": ("agent.py", _FLAG.format("--train.agent_func_path", "openrlhf-agent", "--agent_func_path")),
}
