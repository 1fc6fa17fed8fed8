"""What a module costs: parameters and MACs, by the one definition of the house.

MACs are multiply-adds of convolutions, linear maps and attention products (query x key and weights x value); no bias,
norm, activation, softmax or pooling, and a causal mask does not halve the products. The count is made at the level of
torch's operators while the module runs once, so `F.linear`, `matmul`, `einsum`, a fused attention and `nn.Linear` all
count alike, whatever layers a model is written in. A model on the meta device is counted without any memory:

    >>> model = on_meta(lambda: torch.nn.Conv2d(3, 8, 3, padding=1, bias=False))
    >>> measure_image(model, 32).macs == 8 * 27 * 32 * 32
    True
"""

from effkit.cost.cost import Cost, LayerCost, count_params
from effkit.cost.counting import measure, measure_image
from effkit.cost.formulas import register_macs
from effkit.cost.meta import on_meta

__all__ = ["Cost", "LayerCost", "count_params", "measure", "measure_image", "on_meta", "register_macs"]
