"""What a drift result asks for, in one word that a pipeline can branch on."""

from collections.abc import Mapping
from typing import Any, Literal

Trigger = Literal["retrain", "no-drift", "too-few"]
_TRIGGERS: dict[str, Trigger] = {
    "drift": "retrain",
    "no-drift": "no-drift",
    "too-few": "too-few",
    "no-new-data": "too-few",
}


def trigger(found: Mapping[str, Any]) -> Trigger:
    """The word for the content of a drift.json: retrain, no-drift or too-few (also where nothing is new).

    Raises:
        ValueError: it holds no decision of `arl drift`; a result that cannot be read starts
            nothing.
    """
    decision = found.get("decision")
    if decision not in _TRIGGERS:
        raise ValueError(
            f"{decision!r} is no decision of `arl drift`; it decides {', '.join(_TRIGGERS)}"
        )
    return _TRIGGERS[decision]
