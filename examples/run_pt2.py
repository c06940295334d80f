"""Run an exported model with PyTorch alone: pip install torch numpy pillow.

python examples/run_pt2.py model.pt2 photo.jpg mask.png
"""

import json
import sys

import numpy as np
import torch
from PIL import Image

if __name__ == "__main__":
    path, photo, mask = sys.argv[1:]
    extra = {"scaleseg.json": ""}
    model = torch.export.load(path, extra_files=extra).module()
    pixels = np.array(Image.open(photo).convert("RGB")).transpose(2, 0, 1)[None]  # uint8, 1 x 3 x rows x columns
    with torch.no_grad():
        scores, scale_weights = model(torch.from_numpy(pixels.copy()))[:2]
    labels = scores[0].argmax(dim=0).byte().numpy()
    Image.fromarray(labels).save(mask)
    about = json.loads(extra["scaleseg.json"])
    for class_id, name in enumerate(json.loads(about["classes"])):
        print(f"{name}: {(labels == class_id).mean():.1%}")
    for scale, weight in zip(json.loads(about["scales"]), scale_weights[0].mean(dim=(1, 2)).tolist(), strict=True):
        print(f"scale {scale}: weight {weight:.2f} on average")
