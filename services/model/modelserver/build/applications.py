"""The models of keras.applications: under which name they are built, and what they were trained
with. Knows no Keras, so that the names can be listed without it.
"""

from typing import Final, NamedTuple


class Application(NamedTuple):
    """A function of keras.applications, and what its network wants."""

    function: str
    side: int
    """Width and height in pixels."""
    preprocessing: str
    """One of PREPROCESSINGS; `none` where the network begins with its own."""


APPLICATIONS: Final = {
    "resnet50": Application("ResNet50", 224, "caffe"),
    "resnet101": Application("ResNet101", 224, "caffe"),
    "resnet152": Application("ResNet152", 224, "caffe"),
    "resnet50-v2": Application("ResNet50V2", 224, "tf"),
    "resnet101-v2": Application("ResNet101V2", 224, "tf"),
    "resnet152-v2": Application("ResNet152V2", 224, "tf"),
    "vgg16": Application("VGG16", 224, "caffe"),
    "vgg19": Application("VGG19", 224, "caffe"),
    "mobilenet": Application("MobileNet", 224, "tf"),
    "mobilenet-v2": Application("MobileNetV2", 224, "tf"),
    "mobilenet-v3-small": Application("MobileNetV3Small", 224, "none"),
    "mobilenet-v3-large": Application("MobileNetV3Large", 224, "none"),
    "densenet121": Application("DenseNet121", 224, "torch"),
    "densenet169": Application("DenseNet169", 224, "torch"),
    "densenet201": Application("DenseNet201", 224, "torch"),
    "xception": Application("Xception", 299, "tf"),
    "inception-v3": Application("InceptionV3", 299, "tf"),
    "inception-resnet-v2": Application("InceptionResNetV2", 299, "tf"),
    "nasnet-mobile": Application("NASNetMobile", 224, "tf"),
    "nasnet-large": Application("NASNetLarge", 331, "tf"),
    "efficientnet-b0": Application("EfficientNetB0", 224, "none"),
    "efficientnet-b1": Application("EfficientNetB1", 240, "none"),
    "efficientnet-b2": Application("EfficientNetB2", 260, "none"),
    "efficientnet-b3": Application("EfficientNetB3", 300, "none"),
    "efficientnet-b4": Application("EfficientNetB4", 380, "none"),
    "efficientnet-b5": Application("EfficientNetB5", 456, "none"),
    "efficientnet-b6": Application("EfficientNetB6", 528, "none"),
    "efficientnet-b7": Application("EfficientNetB7", 600, "none"),
    "efficientnet-v2-b0": Application("EfficientNetV2B0", 224, "none"),
    "efficientnet-v2-b1": Application("EfficientNetV2B1", 240, "none"),
    "efficientnet-v2-b2": Application("EfficientNetV2B2", 260, "none"),
    "efficientnet-v2-b3": Application("EfficientNetV2B3", 300, "none"),
    "efficientnet-v2-s": Application("EfficientNetV2S", 384, "none"),
    "efficientnet-v2-m": Application("EfficientNetV2M", 480, "none"),
    "efficientnet-v2-l": Application("EfficientNetV2L", 480, "none"),
    "convnext-tiny": Application("ConvNeXtTiny", 224, "none"),
    "convnext-small": Application("ConvNeXtSmall", 224, "none"),
    "convnext-base": Application("ConvNeXtBase", 224, "none"),
    "convnext-large": Application("ConvNeXtLarge", 224, "none"),
    "convnext-xlarge": Application("ConvNeXtXLarge", 224, "none"),
}
