"""Where the processes of a run meet, also when torchrun has started them again."""

import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

__all__ = ["fresh_room"]

POLL = 0.05  # seconds


def fresh_room(store: Store, rank: int, count: int, patience: timedelta) -> Store:
    """A part of the store in which nobody has been before; TimeoutError if the others do not come.

    torchrun gives processes that it starts again the store of those that died, with their addresses in it (torch 2.13,
    elastic/rendezvous): who reads one before it is replaced calls a process that is gone. So each hangs out a word that
    nobody had before, and the first answers every word with the name of the room.
    """
    word = uuid4().hex
    store.set(f"here/{rank}", word)
    if rank == 0:
        room = word
        _invite(store, room, count, time.monotonic() + patience.total_seconds())
    else:
        store.wait([f"room/{word}"], patience)
        room = store.get(f"room/{word}").decode()
        store.set(f"in/{room}/{rank}", "yes")
    return PrefixStore(room, store)


def _invite(store: Store, room: str, count: int, deadline: float) -> None:
    """Answer every word until all have come in; what hangs there of the dead is answered in vain."""
    missing = set(range(1, count))
    while missing:
        for rank in missing:
            if store.check([f"here/{rank}"]):
                store.set(f"room/{store.get(f'here/{rank}').decode()}", room)
        missing = {rank for rank in missing if not store.check([f"in/{room}/{rank}"])}
        if missing and time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of {count} processes did not come")
        time.sleep(POLL if missing else 0)
