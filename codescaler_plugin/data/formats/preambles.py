"""Preambles that benchmarks put before every program: imports and limits of the interpreter."""

_STAR = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)

# In place of `from builtins import *` of the graders: restores the builtins that `math` and `operator` hide (`pow`),
# and lets a program replace builtins.
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
"""Preamble of LiveCodeBench. The graders of APPS, TACO and DeepCoder have the same names and NumPy, left out here."""

PRIME = _imports(600_000)
"""Preamble of PRIME and of verl's grader: the same names, deeper recursion."""
