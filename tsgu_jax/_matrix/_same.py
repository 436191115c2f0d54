"""Programs that say the same, found again, so that a loop of solves with a function is compiled once.

JAX knows a program by its identity. A function is traced anew in each solve, since what it closes over may have
changed; where that gave the same operations as before, the program from before stands for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from tsgu_jax._program._internals import is_traced

KEPT = 64
"""Programs that are remembered."""

_known: OrderedDict[Any, list[Jaxpr]] = OrderedDict()
_lock = threading.Lock()


def same_program(jaxpr: Jaxpr) -> Jaxpr:
    """A program from before that does the same operations in the same order, or this one."""
    if not _is_plain(jaxpr):
        return jaxpr
    key = (
        tuple(str(var.aval) for var in (*jaxpr.constvars, *jaxpr.invars)),
        tuple(equation.primitive.name for equation in jaxpr.eqns),
    )
    with _lock:
        candidates = _known.setdefault(key, [])
        _known.move_to_end(key)
        while len(_known) > KEPT:
            _known.popitem(last=False)
        for known in candidates:
            if _equal_programs(known, jaxpr):
                return known
        candidates.append(jaxpr)
        del candidates[:-8]  # those with other numbers in them
    return jaxpr


def _is_plain(part: Any) -> bool:
    """Whether a program, or a parameter of one of its operations, is all there is to see.

    Functions of Python's hold what cannot be compared, or belongs to a trace that is to end.
    """
    if isinstance(part, Jaxpr):
        return not part.effects and all(_is_plain(value) for eqn in part.eqns for value in eqn.params.values())
    if isinstance(part, ClosedJaxpr):
        return _is_plain(part.consts) and _is_plain(part.jaxpr)
    if isinstance(part, tuple | list):
        return all(map(_is_plain, part))
    if isinstance(part, dict):
        return all(map(_is_plain, part.values()))
    return not is_traced(part) and (isinstance(part, type) or not callable(part))


def _equal_programs(a: Jaxpr, b: Jaxpr) -> bool:
    if a is b:
        return True
    if len(a.eqns) != len(b.eqns):
        return False
    names: dict[Any, Any] = {}

    def bound(old: Any, new: Any) -> bool:
        """Whether two lists of variables are of the same types; from here on they stand for each other."""
        names.update(zip(old, new, strict=False))
        return len(old) == len(new) and all(o.aval == n.aval for o, n in zip(old, new, strict=True))

    def read(old: Any, new: Any) -> bool:
        if isinstance(old, Literal) or isinstance(new, Literal):
            both = isinstance(old, Literal) and isinstance(new, Literal)
            return both and old.aval == new.aval and _equal(old.val, new.val)
        return names.get(old) is new

    if not (bound(a.constvars, b.constvars) and bound(a.invars, b.invars)):
        return False
    for old, new in zip(a.eqns, b.eqns, strict=True):
        alike = old.primitive is new.primitive and len(old.invars) == len(new.invars)
        if not alike or not all(map(read, old.invars, new.invars)) or not _equal(old.params, new.params):
            return False
        if not bound(old.outvars, new.outvars):
            return False
    return len(a.outvars) == len(b.outvars) and all(map(read, a.outvars, b.outvars))


def _equal(a: Any, b: Any) -> bool:
    """Whether two parameters are the same for certain."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, ClosedJaxpr):
        return len(a.consts) == len(b.consts) and all(map(_equal, a.consts, b.consts)) and _equal(a.jaxpr, b.jaxpr)
    if isinstance(a, Jaxpr):
        return _equal_programs(a, b)
    if isinstance(a, np.ndarray | np.generic | jax.Array):
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()
    if isinstance(a, float):
        return a.hex() == b.hex()  # which tells -0.0 from 0.0
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    try:
        return bool(a == b)
    except Exception:  # what cannot be compared is not the same for certain
        return False
