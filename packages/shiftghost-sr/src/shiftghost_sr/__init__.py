"""GhostSR: super-resolution networks that compute half of each layer and move the rest, deployed as plain convolutions.

Example:
    >>> import torch, shiftghost_sr
    >>> model = shiftghost_sr.create_model("edsr_baseline", 2, ghost={"ghost_ratio": 0.5}).eval()
    >>> fast = shiftghost_sr.deploy(model)
    >>> with torch.inference_mode():
    ...     fast(torch.rand(1, 3, 24, 32)).shape
    torch.Size([1, 3, 48, 64])
"""

from typing import TYPE_CHECKING

from effkit.lazy import attach

if TYPE_CHECKING:
    from shiftghost_sr.compression.deploy import deploy as deploy
    from shiftghost_sr.compression.ghostify import ghostify as ghostify
    from shiftghost_sr.compression.halo import halo as halo
    from shiftghost_sr.images.metrics import psnr_y as psnr_y
    from shiftghost_sr.images.metrics import ssim_y as ssim_y
    from shiftghost_sr.images.resampling import imresize as imresize
    from shiftghost_sr.inference.upscale import upscale as upscale
    from shiftghost_sr.layers.ghost_conv import GhostConv2d as GhostConv2d
    from shiftghost_sr.layers.schedule import set_epoch as set_epoch
    from shiftghost_sr.layers.shift import LearnableShift2d as LearnableShift2d
    from shiftghost_sr.models.files import load_model as load_model
    from shiftghost_sr.models.files import save_model as save_model
    from shiftghost_sr.models.spandrel_arch import register_with_spandrel as register_with_spandrel
    from shiftghost_sr.models.zoo import create_model as create_model
    from shiftghost_sr.ops.shift import shift2d as shift2d

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "GhostConv2d": "shiftghost_sr.layers.ghost_conv",
        "LearnableShift2d": "shiftghost_sr.layers.shift",
        "create_model": "shiftghost_sr.models.zoo",
        "deploy": "shiftghost_sr.compression.deploy",
        "ghostify": "shiftghost_sr.compression.ghostify",
        "halo": "shiftghost_sr.compression.halo",
        "imresize": "shiftghost_sr.images.resampling",
        "load_model": "shiftghost_sr.models.files",
        "psnr_y": "shiftghost_sr.images.metrics",
        "register_with_spandrel": "shiftghost_sr.models.spandrel_arch",
        "save_model": "shiftghost_sr.models.files",
        "set_epoch": "shiftghost_sr.layers.schedule",
        "shift2d": "shiftghost_sr.ops.shift",
        "ssim_y": "shiftghost_sr.images.metrics",
        "upscale": "shiftghost_sr.inference.upscale",
    },
)
