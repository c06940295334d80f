"""Caffe's world without Caffe: the parameters of a .caffemodel, and what our layers call Caffe's.

`read` opens a file of any of Caffe's three formats, `Network.of` says which network it is, `tensors` brings its
parameters under our names.
"""

from scaleseg.caffe.names import is_classifier, layer_name, split_scale
from scaleseg.caffe.net import Layer, Net, read
from scaleseg.caffe.network import Network
from scaleseg.caffe.parameters import tensors

__all__ = ["Layer", "Net", "Network", "is_classifier", "layer_name", "read", "split_scale", "tensors"]
