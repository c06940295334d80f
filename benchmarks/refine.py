"""Refinement against its oracles, in turns: the CRF against pydensecrf2, the domain transform against OpenCV's dtFilter.

    python benchmarks/refine.py --json refine.json
    python benchmarks/refine.py --device cuda        # ours alone: the oracles have no GPU

A photograph of 500 x 375 (scikit-image's cat), 21 classes, smooth random probabilities, seed 0. The CRF: DeepLab-LargeFOV's
settings, 10 iterations, construction included on both sides. The domain transform: three rounds, guided by the photograph,
probabilities to probabilities (logarithm, filter, softmax) on both sides, and as `dt_filter` the filter alone; OpenCV
prepares its guide once and filters four classes at a time, its best use. Both libraries have all threads that ours has
(pydensecrf2 uses one). `crf_ratio` and `dt_ratio` are our median over theirs: below 1 is faster.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import skimage.data
import torch
from machine import machine, synchronize, timed
from PIL import Image

from scaleseg import atomic
from scaleseg.devices import choose_device, describe
from scaleseg.errors import UserError
from scaleseg.refine import DenseCRF, DomainTransform
from scaleseg.refine.domain_transform import differences

__all__ = ["clocked", "main", "task"]

ROWS, COLUMNS, CLASSES = 375, 500, 21

Pair = tuple[torch.Tensor, torch.Tensor]
"""Probabilities (classes, rows, columns) and the photograph (3, rows, columns)."""

Run = Callable[[], torch.Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what can be measured here, and print and write it."""
    options = _parse(arguments)
    try:
        device = choose_device(options.device)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    report = {
        **machine(),
        "device": describe(device),
        "rows": ROWS,
        "columns": COLUMNS,
        "classes": CLASSES,
        "rounds": options.rounds,
    }
    report |= _compared(options.rounds) if device.type == "cpu" else clocked(device, options.rounds)
    if options.json:
        atomic.write(options.json, json.dumps(report, indent=2) + "\n")
    return 0


def task() -> Pair:
    """What both sides get."""
    pixels = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((COLUMNS, ROWS)))
    coarse = torch.randn(1, CLASSES, ROWS // 16, COLUMNS // 16, generator=torch.Generator().manual_seed(0)) * 2
    scores = torch.nn.functional.interpolate(coarse, (ROWS, COLUMNS), mode="bilinear")
    return scores[0].softmax(dim=0), torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def clocked(device: torch.device, rounds: int) -> dict[str, Any]:
    """Milliseconds of ours on a device, as `crf_cuda_ms` and `dt_cuda_ms`; each call is waited for."""
    probabilities, image = (tensor.to(device) for tensor in task())
    report: dict[str, Any] = {}
    for name, refine in (("crf", DenseCRF()), ("dt", DomainTransform())):

        def run(refine: DenseCRF | DomainTransform = refine) -> None:
            refine(probabilities, image)
            synchronize(device)

        run()
        laps = [1000 * timed(run) for _ in range(rounds)]
        print(f"{name}: {median(laps):.1f} ms on {describe(device)}")
        report |= {f"{name}_{device.type}_ms": median(laps), f"{name}_{device.type}_laps_ms": laps}
    return report


def _compared(rounds: int) -> dict[str, Any]:
    pair, crf, domain = task(), DenseCRF(), DomainTransform()
    probabilities, image = pair
    scores = probabilities.log()[None]
    whole, alone = _opencv(pair, domain) or (None, None)
    report: dict[str, Any] = {}
    for name, ours, theirs in (
        ("crf", lambda: crf(*pair), _pydensecrf(pair, crf)),
        ("dt", lambda: domain(*pair), whole),
        ("dt_filter", lambda: domain.of_scores(scores, *differences(image))[0], alone),
    ):
        if theirs is None:
            print(f"{name}: the oracle is not installed")
            continue
        report |= _compare(name, ours, theirs, rounds)
    return report


def _pydensecrf(pair: Pair, crf: DenseCRF) -> Run | None:
    try:
        from pydensecrf import densecrf
    except ImportError:
        return None
    probabilities, image = pair
    unary = np.ascontiguousarray(-probabilities.clamp(min=1e-5).log().flatten(1).numpy())
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())

    def run() -> torch.Tensor:
        network = densecrf.DenseCRF2D(COLUMNS, ROWS, CLASSES)
        network.setUnaryEnergy(unary)
        network.addPairwiseGaussian(sxy=crf.pos_xy_std, compat=crf.pos_w)
        network.addPairwiseBilateral(sxy=crf.bi_xy_std, srgb=crf.bi_rgb_std, rgbim=pixels, compat=crf.bi_w)
        return torch.from_numpy(np.array(network.inference(crf.iterations))).view(CLASSES, ROWS, COLUMNS)

    return run


def _opencv(pair: Pair, domain: DomainTransform) -> tuple[Run, Run] | None:
    """From probabilities to probabilities, and from scores to scores."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(torch.get_num_threads())
    probabilities, image = pair
    guide = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    parts = [np.ascontiguousarray(part.permute(1, 2, 0).numpy()) for part in probabilities.split(4)]

    def filtered(parts: Sequence[np.ndarray]) -> torch.Tensor:
        prepared = cv2.ximgproc.createDTFilter(
            guide, domain.sigma_s, domain.sigma_r * 255, mode=cv2.ximgproc.DTF_RF, numIters=domain.iterations
        )
        done = [prepared.filter(part).reshape(ROWS, COLUMNS, -1) for part in parts]
        return torch.from_numpy(np.concatenate(done, axis=2))

    scores = [np.log(part) for part in parts]
    return (
        lambda: filtered([np.log(part) for part in parts]).softmax(dim=2).permute(2, 0, 1),
        lambda: filtered(scores).permute(2, 0, 1),
    )


def _compare(name: str, ours: Run, theirs: Run, rounds: int) -> dict[str, Any]:
    """Medians over interleaved rounds, after one of each that does not count."""
    one, other = ours(), theirs()
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for side, run in (("ours", ours), ("theirs", theirs)):
            seconds[side].append(timed(run))
    ratio = median(seconds["ours"]) / median(seconds["theirs"])
    agreement = float((one.argmax(dim=0) == other.argmax(dim=0)).float().mean())
    print(
        f"{name}: {median(seconds['ours']):.3f} s against {median(seconds['theirs']):.3f} s, ratio {ratio:.2f}; "
        f"{100 * agreement:.2f} % of the labels agree, mean difference {float((one - other).abs().mean()):.1e}"
    )
    return {
        f"{name}_ratio": ratio,
        f"{name}_seconds": seconds,
        f"{name}_label_agreement": agreement,
        f"{name}_mean_difference": float((one - other).abs().mean()),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda[:N]")
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; give at least 1")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
