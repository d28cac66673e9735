"""The backbones by name. To add one, add its spec to BACKBONES."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.convolutional import EFFICIENTNET_LITE2, WIDE_RESNET50_2
from patchserve_server.engine.backbone.vision_transformers import DINOV2_VITS14, DINOV2_VITS14_REG, DINOV3_VITS16

BACKBONES: Mapping[str, BackboneSpec] = MappingProxyType(
    {spec.name: spec for spec in (WIDE_RESNET50_2, EFFICIENTNET_LITE2, DINOV2_VITS14, DINOV2_VITS14_REG, DINOV3_VITS16)}
)
