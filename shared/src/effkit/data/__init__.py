"""Real data by name, as Lightning data modules: embedded sets that need no download, and the usual folders.

Pictures are bytes until they are on the device that computes; ``Preprocessing`` says how they get their size and how
bytes become numbers, and travels with the network that was trained on them.

>>> from effkit.data import create_data
>>> data = create_data("digits", batch_size=64)
>>> data.num_classes, data.image_size, data.in_chans
(10, 32, 3)
"""

from typing import TYPE_CHECKING

from effkit.lazy import attach

if TYPE_CHECKING:
    from effkit.data.base import DataModule as DataModule
    from effkit.data.catalogue import DATASETS as DATASETS
    from effkit.data.catalogue import create_data as create_data
    from effkit.data.catalogue import data_arguments as data_arguments
    from effkit.data.classes import class_names as class_names
    from effkit.data.digits import Digits as Digits
    from effkit.data.digits import load_digits as load_digits
    from effkit.data.files import PictureDataModule as PictureDataModule
    from effkit.data.finding import class_folders as class_folders
    from effkit.data.finding import find_pictures as find_pictures
    from effkit.data.folders import ImageFolder as ImageFolder
    from effkit.data.memory import MemoryDataModule as MemoryDataModule
    from effkit.data.photos import PhotoCrops as PhotoCrops
    from effkit.data.pictures import BUNDLED as BUNDLED
    from effkit.data.pictures import load_picture as load_picture
    from effkit.data.preprocessing import Normalize as Normalize
    from effkit.data.preprocessing import Preprocessing as Preprocessing
    from effkit.data.textures import Textures as Textures
    from effkit.data.torchvision_sets import CIFAR10 as CIFAR10
    from effkit.data.torchvision_sets import CIFAR100 as CIFAR100
    from effkit.data.torchvision_sets import ImageNet as ImageNet
    from effkit.data.unreadable import Unreadable as Unreadable

# Data modules are Lightning's; who only reads pictures need not load it.
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "BUNDLED": "effkit.data.pictures",
        "CIFAR10": "effkit.data.torchvision_sets",
        "CIFAR100": "effkit.data.torchvision_sets",
        "DATASETS": "effkit.data.catalogue",
        "DataModule": "effkit.data.base",
        "Digits": "effkit.data.digits",
        "ImageFolder": "effkit.data.folders",
        "ImageNet": "effkit.data.torchvision_sets",
        "MemoryDataModule": "effkit.data.memory",
        "Normalize": "effkit.data.preprocessing",
        "PhotoCrops": "effkit.data.photos",
        "PictureDataModule": "effkit.data.files",
        "Unreadable": "effkit.data.unreadable",
        "Preprocessing": "effkit.data.preprocessing",
        "Textures": "effkit.data.textures",
        "class_folders": "effkit.data.finding",
        "class_names": "effkit.data.classes",
        "create_data": "effkit.data.catalogue",
        "data_arguments": "effkit.data.catalogue",
        "find_pictures": "effkit.data.finding",
        "load_digits": "effkit.data.digits",
        "load_picture": "effkit.data.pictures",
    },
)
