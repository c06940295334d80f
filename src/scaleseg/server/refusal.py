"""Why a request is not answered: a status, and the sentence that goes with it."""

import re

__all__ = ["Refusal", "shown"]

LONGEST = 60
"""Characters of a name that a client gave, as far as it is said back."""

_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
"""What Python calls an object without a name of its own; where it lies in memory is nobody's business."""


class Refusal(Exception):
    """A request that gets no result: `status` is HTTP's, `sentence` says what was given, what is accepted, what to do."""

    def __init__(self, status: int, sentence: str, *, retry_after: int | None = None, allow: str | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = _ADDRESS.sub("the data", sentence)
        self.retry_after = retry_after
        self.allow = allow

    def headers(self) -> dict[str, str]:
        """What goes along: when to come again, who must say who he is, what else is allowed."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            found["WWW-Authenticate"] = 'Bearer realm="scaleseg"'
        return found if self.allow is None else found | {"Allow": self.allow}


def shown(given: str) -> str:
    """Something that a client gave, safe to say back: short, and without what acts on a terminal."""
    cut = given if len(given) <= LONGEST else given[:LONGEST] + "..."
    return cut if cut.isprintable() else repr(cut)[1:-1]
