"""Run an exported model with ONNX Runtime: pip install onnxruntime pillow.

python examples/run_onnx.py model.onnx photo.jpg mask.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

if __name__ == "__main__":
    model, photo, mask = sys.argv[1:]
    session = onnxruntime.InferenceSession(model)
    pixels = np.array(Image.open(photo).convert("RGB")).transpose(2, 0, 1)[None]  # uint8, 1 x 3 x rows x columns
    scores, scale_weights = session.run(["scores", "scale_weights"], {"images": pixels})
    labels = scores[0].argmax(axis=0).astype(np.uint8)
    Image.fromarray(labels).save(mask)
    about = session.get_modelmeta().custom_metadata_map
    for class_id, name in enumerate(json.loads(about["classes"])):
        print(f"{name}: {(labels == class_id).mean():.1%}")
    for scale, weight in zip(json.loads(about["scales"]), scale_weights[0].mean(axis=(1, 2)), strict=True):
        print(f"scale {scale}: weight {weight:.2f} on average")
