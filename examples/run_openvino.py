"""Run an exported model with OpenVINO: pip install openvino pillow.

python examples/run_openvino.py model/ photo.jpg mask.png
"""

import json
import sys

import numpy as np
import openvino
from PIL import Image

if __name__ == "__main__":
    folder, photo, mask = sys.argv[1:]
    model = openvino.Core().read_model(f"{folder}/model.xml")
    compiled = openvino.compile_model(model, "AUTO")  # on a CPU that multiplies bf16, in that; else float32
    pixels = np.array(Image.open(photo).convert("RGB")).transpose(2, 0, 1)[None]  # uint8, 1 x 3 x rows x columns
    found = compiled({"images": pixels})
    labels = found["scores"][0].argmax(axis=0).astype(np.uint8)
    Image.fromarray(labels).save(mask)
    for class_id, name in enumerate(json.loads(model.get_rt_info(["scaleseg", "classes"]).value)):
        print(f"{name}: {(labels == class_id).mean():.1%}")
    scales = json.loads(model.get_rt_info(["scaleseg", "scales"]).value)
    for scale, weight in zip(scales, found["scale_weights"][0].mean(axis=(1, 2)), strict=True):
        print(f"scale {scale}: weight {weight:.2f} on average")
