"""When a job that did not end well is tried again: by what its spec says for each kind of end.

    on_exit = {
      "lost":             {"retry": true, "limit": 3},     its process, worker or machine is gone
      "hung":             {"retry": true, "limit": 1},     it had not reported for `silence_limit`
      "-9":               {"retry": true, "limit": 1},     killed by that signal
      "OutOfMemoryError": {"retry": true, "limit": 1, "patch": {"batch": 2}},  this exception
      "3":                {"retry": true, "limit": 1},     this exit status
    }

`limit` is the number of further tries for that kind of end, in one sweep or many, until a person
asks for a retry. `patch` changes arguments of the further attempts, and is kept in their records.
Nothing is retried that the spec does not name, but for a job that was asked to stop and did
(status 75): it goes on, as often as it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

TRY_AGAIN = 75  # EX_TEMPFAIL: the exit status of a job that stopped early and can be run again

OnExit = Mapping[str, Mapping[str, Any]]

# A job that keeps stopping without having been asked to would be started for ever.
UNASKED_INTERRUPTIONS = 3

_KIND = re.compile(r"-?(0|[1-9]\d{0,2})|lost|hung|[A-Z]\w*")
_KEYS: dict[str, type] = {"retry": bool, "patch": dict, "limit": int}


def kinds_of(ended: Mapping[str, Any]) -> list[str]:
    """What `on_exit` may call this end, the most telling first."""
    error = ended.get("error") or {}
    kinds = [ended["status"], error.get("type"), str(ended["exit_code"])]
    return [kind for kind in kinds if kind]


def next_try(on_exit: OnExit, ends: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The changed arguments of the next attempt after these ends, oldest first; None for no more.

    Pure: the same records give the same answer to everybody.
    """
    last = ends[-1]
    patch = dict(last.get("patch") or {})
    if last["status"] == "interrupted":
        if last.get("stop_requested"):
            return patch
        unasked = sum(e["status"] == "interrupted" and not e.get("stop_requested") for e in ends)
        return patch if unasked <= UNASKED_INTERRUPTIONS else None
    for kind in kinds_of(last):
        rule = on_exit.get(kind)
        if rule is None:
            continue
        if not rule.get("retry", False) or sum(kind in kinds_of(e) for e in ends) > _limit(rule):
            return None
        return patch | dict(rule.get("patch", {}))
    return None


def _limit(rule: Mapping[str, Any]) -> int:
    return int(rule.get("limit", 1))


def on_exit_faults(on_exit: OnExit) -> list[str]:
    """What is wrong with a spec's `on_exit`."""
    faults = []
    for kind, action in on_exit.items():
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            faults.append(
                f"on_exit: {kind!r} is not an exit status as text ('75', '-9'), 'lost', 'hung' or "
                "the name of an exception"
            )
        if not isinstance(action, Mapping):
            faults.append(f"on_exit[{kind!r}] is not an object")
            continue
        for key, value in action.items():
            if key not in _KEYS:
                faults.append(f"on_exit[{kind!r}] has no {key!r}; known: {list(_KEYS)}")
            elif type(value) is not _KEYS[key]:
                faults.append(f"on_exit[{kind!r}].{key} is not a {_KEYS[key].__name__}")
    return faults
