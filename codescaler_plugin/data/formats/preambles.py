"""What benchmarks put before every program: imports, and limits of the interpreter."""

_STAR = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)

# In place of `from builtins import *`, as graders have it: what `math` and `operator` hide (`pow`) is open again, and
# a program may still replace what is built in.
_BUILTINS_AGAIN = """\
import builtins
for _name in dir(builtins):
    if not _name.startswith("_"):
        globals().pop(_name, None)
del builtins, _name
"""


def _imports(recursion: int) -> str:
    return "".join(
        (
            *(f"from {module} import *\n" for module in _STAR.split()),
            _BUILTINS_AGAIN,
            "from typing import *\n",
            f"import {', '.join(_STAR.split())}, fractions, time\n",
            f"sys.setrecursionlimit({recursion})\n",
            'if hasattr(sys, "set_int_max_str_digits"):\n    sys.set_int_max_str_digits(50000)\n',
        )
    )


LIVECODEBENCH = _imports(50_000)
"""LiveCodeBench's; the graders of APPS, TACO and DeepCoder have these names, and NumPy, which is not imported here."""

PRIME = _imports(600_000)
"""That of PRIME and of verl's grader: the same names, deeper recursion."""
