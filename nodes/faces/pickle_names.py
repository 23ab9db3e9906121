"""The names a YOLO checkpoint may mention: a constant list, whatever the file or the machine holds.

Collected from the files Ultralytics writes (8.0 to 8.4, also under the module paths of early releases). A
name here is only recognised, never imported; see `pickles.py`.
"""

from __future__ import annotations

# torch's typed storages and the dtype of their numbers (names of torch dtypes).
STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.DoubleStorage": "float64",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}

# Methods of a model that a checkpoint may point at through getattr.
BOUND_METHODS = ("forward", "forward_fuse", "forward_split")

_PLAIN = (
    "collections.OrderedDict __builtin__.set builtins.set __builtin__.getattr builtins.getattr "
    "torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor torch._utils._rebuild_parameter torch.Size "
    "torch.device argparse.Namespace pathlib.PosixPath pathlib.WindowsPath pathlib._local.PosixPath "
    "pathlib._local.WindowsPath numpy.dtype numpy.core.multiarray.scalar numpy._core.multiarray.scalar "
    "ultralytics.utils.IterableSimpleNamespace ultralytics.yolo.utils.IterableSimpleNamespace"
).split()

_TORCH_LAYERS = {
    "activation": "SiLU ReLU ReLU6 LeakyReLU GELU Hardswish Mish ELU PReLU Sigmoid Tanh MultiheadAttention",
    "batchnorm": "BatchNorm2d",
    "container": "ModuleList Sequential ModuleDict ParameterList",
    "conv": "Conv1d Conv2d ConvTranspose2d",
    "dropout": "Dropout",
    "linear": "Identity Linear",
    "loss": "BCEWithLogitsLoss CrossEntropyLoss",
    "normalization": "LayerNorm GroupNorm",
    "padding": "ZeroPad2d",
    "pooling": "MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d",
    "upsampling": "Upsample",
}

_CONV = (
    "Conv Conv2 LightConv DWConv DWConvTranspose2d ConvTranspose Focus GhostConv RepConv ChannelAttention "
    "SpatialAttention CBAM Concat Index"
)
_BLOCK = (
    "DFL Proto Proto26 HGStem HGBlock SPP SPPF C1 C2 C2f C3 C3x RepC3 C3TR C3Ghost GhostBottleneck "
    "Bottleneck BottleneckCSP ResNetBlock ResNetLayer RepBottleneck RepCSP RepNCSPELAN4 ELAN1 AConv ADown "
    "SPPELAN CBLinear CBFuse Silence C3f C3k2 C3k RepVGGDW CIB C2fCIB Attention PSABlock PSA C2PSA C2fPSA "
    "SCDown AAttn ABlock A2C2f"
)
_HEAD = "Detect Segment Segment26 OBB OBB26 Pose Pose26 Classify RTDETRDecoder v10Detect"
_MODEL = (
    "BaseModel DetectionModel YOLOv10DetectionModel SegmentationModel PoseModel OBBModel ClassificationModel "
    "RTDETRDetectionModel Ensemble"
)
_LOSS = (
    "VarifocalLoss FocalLoss DFLoss BboxLoss RotatedBboxLoss KeypointLoss v8DetectionLoss v8SegmentationLoss "
    "v8PoseLoss v8ClassificationLoss v8OBBLoss v10DetectLoss E2EDetectLoss E2ELoss MultiChannelDiceLoss "
    "BCEDiceLoss RLELoss"
)
_ASSIGNER = "TaskAlignedAssigner RotatedTaskAlignedAssigner"


def _paths(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


PERMITTED = frozenset(
    [
        *_PLAIN,
        *STORAGES,
        *(
            path
            for module, names in _TORCH_LAYERS.items()
            for path in _paths(f"torch.nn.modules.{module}", names)
        ),
        *_paths("ultralytics.nn.modules.conv", _CONV),
        *_paths("ultralytics.nn.modules.block", _BLOCK),
        *_paths("ultralytics.nn.modules.head", _HEAD),
        *_paths("ultralytics.nn.modules", f"{_CONV} {_BLOCK} {_HEAD}"),
        *_paths("ultralytics.nn.tasks", _MODEL),
        *_paths("ultralytics.utils.loss", _LOSS),
        *_paths("ultralytics.yolo.utils.loss", _LOSS),
        *_paths("ultralytics.utils.tal", _ASSIGNER),
        *_paths("ultralytics.yolo.utils.tal", _ASSIGNER),
        # Loss classes lived beside their trainers before 8.0.100.
        "ultralytics.yolo.v8.detect.train.Loss",
        "ultralytics.yolo.v8.segment.train.SegLoss",
    ]
)
