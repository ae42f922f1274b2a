"""Checks of arrays that callers pass in. Each raises `UserError` with the name of the array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError


def as_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """The values as float64 [samples]; None becomes nan.

    Raises:
        UserError: values that are no numbers, or more than one dimension.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be numbers: {error}.") from error
    if array.ndim != 1:
        raise UserError(f"{name} must be one number per sample, got the shape {list(array.shape)}.")
    return array


def as_scores(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """The scores as float64 [samples], nan (or None) for "no score".

    Raises:
        UserError: as `as_numbers`; also for an infinite score, which only a broken computation gives.
    """
    array = as_numbers(name, values)
    if np.isinf(array).any():
        raise UserError(f"{name}[{int(np.isinf(array).argmax())}] is infinite; expected a number or nan.")
    return array


def as_flags(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    """The values as bool [samples].

    Raises:
        UserError: as `as_numbers`; also for a value other than true, false, 1 and 0, missing ones included.
    """
    array = as_numbers(name, values)
    odd = np.flatnonzero((array != 0) & (array != 1))
    if len(odd):
        raise UserError(
            f"{name}[{odd[0]}] is {array[odd[0]]:g}; expected true or false. Decide first how unparsed "
            "answers and errors count."
        )
    return array.astype(bool)


def require_same_length(**arrays: NDArray) -> None:
    """Raise UserError where the arrays, given by name, differ in length."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"The arrays must describe the same samples, but their lengths differ: {listed}.")
