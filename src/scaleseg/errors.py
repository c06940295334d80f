"""The one exception that is the user's: a file, a setting or a checkpoint that cannot be used.

UserError                 what was given, what is accepted, what to do; shown without a traceback, exit code 1
ValueError, TypeError     a programmer's mistake: expected and actual
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["UserError", "as_raised", "choose", "reason"]


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, what is accepted and what to do."""


def as_raised(error: UserError) -> UserError:
    """A data worker's UserError with its own sentence: DataLoader hands it on with a traceback around it."""
    return UserError(str(error).rpartition(f"{__name__}.UserError: ")[2].strip())


def reason(error: Exception) -> str:
    """Why something failed, in one line; torch.load's advice, to let a file run its code, is not passed on."""
    if type(error).__name__ == "UnpicklingError":
        return "it holds more than tensors and plain values, or is damaged; nothing in it was executed"
    return (str(error).splitlines() or [type(error).__name__])[0]


def choose(what: str, given: str, accepted: Iterable[str]) -> str:
    """`given` if it is one of `accepted`; else a UserError that names the nearest and, if they are few, all of them."""
    names = sorted(accepted)
    if given in names:
        return given
    near = get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(names) > FEW:
        shown = get_close_matches(given, names, n=5, cutoff=0.4) or names[:5]
        raise UserError(
            f"{what} is {given!r}; {hint}choose {', '.join(shown)} or one of {len(names) - len(shown)} others"
        )
    raise UserError(f"{what} is {given!r}; {hint}choose {_listed(names)}")


FEW = 12
"""Up to so many names are all listed."""


def _listed(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "nothing: there are none"
