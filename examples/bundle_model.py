"""Make a small checkpoint to give away: half-precision parameters, no training state, no paths of the machine that made it.

python examples/bundle_model.py runs/animals/best src/scaleseg/bundled/voc-animals-lite
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

import scaleseg
from scaleseg.checkpoint import locate, read_config


def main() -> None:
    """Read the checkpoint, write the small one, say how large it is."""
    source, target = locate(sys.argv[1]), Path(sys.argv[2])
    config = read_config(source)
    data = replace(config.data, root=None, train=None, val=None, dev=0.1)
    train = replace(config.train, init_from=None)
    about = json.loads((source / "config.json").read_text())["about"]
    scaleseg.save(
        target,
        scaleseg.load(source),
        replace(config, data=data, train=train),
        dtype=torch.float16,
        about=about,
    )
    print(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
