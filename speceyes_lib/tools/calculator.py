"""calculate: one arithmetic expression, worked out without Python's interpreter.

Only numbers, arithmetic and a few functions are evaluated. Sizes are checked before an operation, so that no expression
takes long.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

from pydantic import Field

from .declared import Arguments, Effect, Tool, Workspace
from .worker import ToolError

MAX_CHARS, MAX_NODES, MAX_BITS = 1000, 300, 4096
Number = int | float

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}


class CalculateArguments(Arguments):
    """Arguments of calculate."""

    expression: str = Field(min_length=1, description="for example (482+117)*2, sqrt(2) or max(3, 4)")


def calculate(expression: str) -> Number:
    """The value of an expression.

    Raises:
        ToolError: it is no arithmetic, has no value, or its numbers grow too large.
    """
    if len(expression) > MAX_CHARS:
        raise ToolError(f"The expression is longer than {MAX_CHARS} characters.")
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd numbers, which are refused below
            tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"{expression[:100]!r} is no arithmetic expression.") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise ToolError(f"The expression has more than {MAX_NODES} parts.")
    try:
        value = _value(tree.body)
    except ZeroDivisionError:
        raise ToolError("The expression divides by zero.") from None
    except (OverflowError, ValueError) as error:
        raise ToolError(f"The expression has no value: {error}.") from None
    except TypeError:
        raise ToolError(
            "The expression mixes a list with a number, or a function has other arguments."
        ) from None
    if isinstance(value, list):
        raise ToolError("The value is a list of numbers; write numbers without commas between thousands.")
    return value


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _checked(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _number(operand)
            return -number if isinstance(sign, ast.USub) else number
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_number(left), _number(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _checked(_OPERATORS[type(op)](_number(left), _number(right)))
        case ast.BinOp(op=ast.BitXor()):
            raise ToolError("^ is no operator here; write ** for a power.")
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_number(part) for part in parts]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _checked(_FUNCTIONS[name](*map(_value, arguments)))
    raise ToolError(
        f"{ast.unparse(node)[:100]!r} is not allowed; an expression holds numbers, + - * / // % **, brackets, pi, e "
        f"and {', '.join(_FUNCTIONS)}."
    )


def _number(node: ast.AST) -> Number:
    value = _value(node)
    if isinstance(value, list):
        raise TypeError
    return value


def _checked(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ToolError(f"A number of the expression has more than {MAX_BITS} bits.")
    if isinstance(value, float) and not math.isfinite(value):
        raise OverflowError("a number is too large")
    return value


def _power(base: Number, exponent: Number, modulus: int | None = None) -> Number:
    if modulus is not None:
        if not all(isinstance(v, int) for v in (base, exponent, modulus)) or exponent < 0:
            raise TypeError
        return pow(base, exponent, modulus)
    whole = isinstance(base, int) and isinstance(exponent, int)
    # the result has about this many bits, so it is refused before it is computed
    if whole and exponent > 0 and abs(base) > 1 and (base.bit_length() - 1) * exponent > MAX_BITS:
        raise ToolError(f"{base}**{exponent} has more than {MAX_BITS} bits."[:300])
    if base < 0 and not float(exponent).is_integer():
        raise ValueError("a root of a negative number")
    return _checked(base**exponent)


def _round(value: Number, digits: int = 0) -> Number:
    if not isinstance(digits, int) or abs(digits) > 400:
        raise TypeError
    return round(value, digits) if digits else round(value)


def _sum(*values: Any) -> Number:
    parts = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    total: Number = 0
    for part in parts:
        total = _checked(total + part)
    return total


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "sum": _sum,
    "round": _round,
    "pow": _power,
    "sqrt": math.sqrt,
}


def _run(arguments: CalculateArguments, workspace: Workspace) -> str:
    return str(calculate(arguments.expression))


CALCULATE = Tool(
    name="calculate",
    description="Work out one arithmetic expression.",
    arguments=CalculateArguments,
    effect=Effect.pure,
    run=_run,
)
