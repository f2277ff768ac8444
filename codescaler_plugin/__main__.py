"""`python -m codescaler_plugin`, the same as `codescaler`."""

from codescaler_plugin.cli import app

app(prog_name="codescaler")
