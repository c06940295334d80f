"""A signal is heard once, and what was there before is back afterwards."""

import signal

import pytest

from scaleseg.interruption import interrupts


@pytest.mark.parametrize("at_once", [True, False])
def test_a_second_signal_acts_at_once_or_is_one_more(at_once: bool) -> None:
    heard, said = [], []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with interrupts(lambda: said.append(1), again_at_once=at_once) as caught:
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
        assert (len(caught), len(heard), len(said)) == ((1, 1, 1) if at_once else (2, 0, 1))
        signal.raise_signal(signal.SIGTERM)
        assert len(heard) == (2 if at_once else 1)
    finally:
        signal.signal(signal.SIGTERM, before)
