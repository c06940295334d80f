r"""Caffe's layer names and ours: the released DeepLab networks, v1 (VGG-16) and v2 (ResNet-101), and the attention head.

Names of ours are those below `segmenter` of a model, and `fusion.hidden`, `fusion.logits`. The Caffe nets are those of
DeepLab's releases (`fc8_voc12`, `fc1_voc12_c0`), of MSRA's ResNet (`res2a_branch2a`, `bn2a_branch2a`,
`scale2a_branch2a`) and of the attention nets by one of the paper's authors' fork (`att_conv1`, `att_fc`), where the copy
of a shared layer at another scale ends on `_res075`, `_res05` or `_res025`.
"""

import re

__all__ = ["is_classifier", "layer_name", "split_scale"]

_SCALE = re.compile("_res(0[0-9]+)(?=_|$)")

_RULES = (
    (r"conv[1-5]_[1-3]", r"trunk.\g<0>"),
    (r"fc[67]", r"\g<0>"),
    (r"fc8(_\w+)?", r"fc8"),
    (r"(data|pool[1-4])_(conv|fc|ms)", r"\g<0>"),
    (r"att_conv1", r"fusion.hidden"),
    (r"att_fc", r"fusion.logits"),
    (r"conv1", r"trunk.conv1"),
    (r"(bn|scale)_conv1", r"trunk.bn1"),
    (r"fc1_\w+_c([0-3])", r"aspp.\1"),
)
_RESIDUAL = re.compile("(res|bn|scale)([2-5])([abc])([0-9]{0,2})_branch(1|2[abc])")


def split_scale(name: str) -> tuple[str, float]:
    """A layer's name without its scale, and the scale: `conv1_1_res075` is (`conv1_1`, 0.75), `conv1_1` has scale 1."""
    found = _SCALE.search(name)
    if found is None:
        return name, 1.0
    return name[: found.start()] + name[found.end() :], int(found[1]) / 10 ** (len(found[1]) - 1)


def layer_name(name: str) -> str | None:
    """Our layer for a layer of Caffe's at scale 1; None if no network here has such a layer."""
    for pattern, template in _RULES:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(template)
    found = _RESIDUAL.fullmatch(name)
    return _residual(*found.groups()) if found else None


def is_classifier(name: str) -> bool:
    """Scores of the network that parameters were learned in, which a network that starts from them has no use for."""
    return re.fullmatch(r"(fc8|fc1|fc1000)(_\w+)?", name) is not None


def _residual(part: str, stage: str, letter: str, number: str, branch: str) -> str:
    """`res3b2_branch2a` is the first convolution of block 2 (from 0) in the second of our four stages."""
    block = int(number) if number else "abc".index(letter)
    place = f"trunk.layer{int(stage) - 1}.{block}"
    if branch == "1":
        return f"{place}.downsample.{0 if part == 'res' else 1}"
    return f"{place}.{'conv' if part == 'res' else 'bn'}{'abc'.index(branch[1]) + 1}"
