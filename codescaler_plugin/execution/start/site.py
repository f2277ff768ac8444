"""Imported by the interpreter in place of its own module `site`, just before it runs its script.

The fork server lives in this import. Its forked children that are to run a program leave it, and the interpreter goes
on: it runs the program as the script that it was started for, and ends by itself. PYTHONPATH leads here, where frozen
modules are off.
"""

import os
import sys

if __name__ == "site":  # not for tools that import all modules of the package
    sys.path.remove(os.path.dirname(__file__))
    sys.path.append(sys.argv[2])
    from codescaler_plugin.isolation.processes import put_off_fork_hooks

    put_off_fork_hooks()  # before anything else is imported
    from codescaler_plugin.execution.fork_server import main

    sys.path.pop()
    main()
