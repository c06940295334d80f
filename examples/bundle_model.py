"""Make a small checkpoint to give away: half-precision parameters, no training state, no paths of the machine that made it.

python examples/bundle_model.py runs/animals/best src/scaleseg/bundled/voc-animals-lite
"""

import sys

import torch

import scaleseg

if __name__ == "__main__":
    folder = scaleseg.save_pretrained(sys.argv[1], sys.argv[2], dtype=torch.float16)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB")
