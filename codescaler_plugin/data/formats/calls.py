"""Arguments and results of call tests, read as the graders of their data sets read them.

| form | arguments | result |
|---|---|---|
| LiveCodeBench | a JSON value a line | a JSON value |
| APPS, TACO, DeepCoder, PRIME, verl | a list, or a JSON value a line | bare, or wrapped in a list; text may be JSON |

What can be read in two ways is expected in one and accepted in the other.
"""

from typing import Any

from codescaler_plugin.data.rows import loads
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import CallTest


def json_call(given: Any, wanted: Any) -> CallTest:
    """A test of LiveCodeBench's form; an output that is no JSON is that string."""
    return CallTest(_arguments(given), _json_or_text(wanted))


def apps_call(given: Any, wanted: Any) -> CallTest:
    """A test of APPS' form, whose result may be wrapped in a list of one; see the table above.

    A lone dict has integer keys where all its keys are integers: JSON has no others than strings.
    """
    arguments = _arguments(given)
    are_json = isinstance(given, str) and arguments != (given,)
    readings = [_json_or_text(wanted)]
    if isinstance(wanted, str) and not are_json:
        readings.append(wanted)  # beside arguments that are no JSON text, one that looks like it may be the result
    if len(arguments) == 1:
        arguments = (_integer_keys(arguments[0]),)
    readings = [inner for outer in readings for inner in _unwrapped(outer)]
    distinct = {repr(typed): typed for one in readings for typed in _with_integer_keys(one)}  # since 1 == True
    expected, *others = distinct.values()
    return CallTest(arguments, expected, tuple(others))


def _arguments(given: Any) -> tuple[Any, ...]:
    if isinstance(given, list):
        return tuple(given)
    if not isinstance(given, str):
        return (given,)
    try:
        return tuple(loads(line) for line in given.split("\n") if line.strip())
    except ValueError:
        return (given,)


def _json_or_text(value: Any) -> Any:
    try:
        return loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _unwrapped(value: Any) -> list[Any]:
    """A list of one may be the result, or hold it."""
    return [value[0], value] if isinstance(value, list) and len(value) == 1 else [value]


def _with_integer_keys(value: Any) -> list[Any]:
    turned = _integer_keys(value)
    return [value] if turned is value else [turned, value]


def _integer_keys(value: Any) -> Any:
    try:
        return {int(key): one for key, one in value.items()} if isinstance(value, dict) and value else value
    except ValueError:
        return value


def paired(inputs: Any, outputs: Any) -> list[tuple[Any, Any]]:
    """Inputs and outputs one by one.

    Raises:
        DataError: another number of each.
    """
    inputs, outputs = inputs or [], outputs or []
    if len(inputs) != len(outputs):
        raise DataError(f"{len(inputs)} inputs and {len(outputs)} outputs: expected one each")
    return list(zip(inputs, outputs, strict=True))
