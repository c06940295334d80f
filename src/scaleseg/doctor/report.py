"""What the doctor found: facts for programs, lines for people, and what is wrong."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report", "first_line", "said"]


@dataclass
class Report:
    """What was found: `facts` by section as JSON holds them, the same as `lines` to read, and what is wrong."""

    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What would stop segmenting, training or the demo, and what to do."""
    warnings: list[str] = field(default_factory=list)
    """What costs speed, an extra or a later surprise, and what to do."""

    def add(self, section: str, facts: Any, *lines: str) -> None:
        """A section: its facts, and lines beside its name."""
        self.facts[section] = facts
        self.lines += [f"{section if not number else '':<15} {line}" for number, line in enumerate(lines)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**self.facts, "warnings": self.warnings, "problems": self.problems}


def said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {first_line(str(error))}" if str(error).strip() else type(error).__name__


def first_line(text: str) -> str:
    """The first line with anything on it, up to 300 characters."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
