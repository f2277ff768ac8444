"""Sampling settings and their ranges."""

import pytest

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.generation.sampling import Sampling


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="top_p in"):
        Sampling(top_p=0)
