"""What a server allows, and how it may be reached."""

from dataclasses import dataclass, field

__all__ = ["Limits", "Settings"]


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take; times in seconds."""

    bytes: int = 32_000_000
    """Of one request's body."""
    bytes_in_flight: int = 256_000_000
    """Of all bodies that are held at once."""
    answers_in_flight: int = 1_000_000_000
    """Bytes of all answers that are made and not yet taken."""
    pixels: int = 40_000_000
    """Of one image, known from its header before it is decoded."""
    refined_bytes: int = 1_000_000_000
    """What a refinement may take; it needs every class's probabilities at the image's size."""
    queue: int = 32
    """Requests that wait or are worked on; further ones are asked to come again."""
    uploads: int = 256
    """Requests whose bodies are being read."""
    body_seconds: float = 30.0
    """For a body to arrive."""
    seconds: float = 120.0
    """From the last byte of a body to the first of the answer."""
    send_seconds: float = 60.0
    """For an answer to be taken."""
    drain_seconds: float = 20.0
    """For what waits to be answered once the server is told to end."""


@dataclass(frozen=True)
class Settings:
    """How a server may be reached, and its limits."""

    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    """What `Authorization: Bearer` must say, where one is needed."""
    hosts: frozenset[str] | None = None
    """Names in `Host` that are answered, without ports; None answers to all."""
    batch: int | None = None
    """Images that a device looks at together, at most; without it 1 on a CPU, 8 elsewhere."""
    max_memory: int | None = None
    """Bytes, as for `segment`; without it half the memory, for large images."""
