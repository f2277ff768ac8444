"""What the interpreter imports in place of its module `site`, just before it runs its script.

The warm process lives in this import. Its forked children that are to run a program leave it, and the interpreter goes
on: it runs the program as the script that it was started for, and ends by itself. Found by PYTHONPATH, where frozen
modules are off.
"""

import os
import sys

sys.path.remove(os.path.dirname(__file__))
sys.path.append(sys.argv[2])
from codescaler_plugin.isolation.forks import put_off

put_off()  # before anything else is imported
from codescaler_plugin.execution.fork_server import main  # noqa: E402

sys.path.pop()
main()
