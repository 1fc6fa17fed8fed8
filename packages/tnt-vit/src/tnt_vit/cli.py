"""The command line: ``tnt-vit COMMAND group=option key=value``; each command is a short recipe over the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App("tnt-vit", "tnt_vit.configs", summary="Transformer in Transformer: train, use, measure and reproduce TNT.")


@main.command("train")
def train(cfg: DictConfig) -> Report:
    """Train or fine-tune a TNT; resume=RUN goes on with an interrupted run."""
    from pathlib import Path

    from effkit.lightning import train as fit
    from effkit.report import Report, Table
    from tnt_vit.build import build_data_and_model, set_up
    from tnt_vit.weights import save_checkpoint

    set_up(cfg)
    data, model = build_data_and_model(cfg, fresh_head=True)
    metrics = fit(cfg, model, data)
    weights = save_checkpoint(model, Path(metrics["folder"]) / "model.safetensors")
    rows = [[k, v] for k, v in metrics["final"].items()]
    rows += (
        [["best epoch", metrics["best"]]]
        if not isinstance(metrics["best"], dict)
        else [[f"best: {k}", v] for k, v in metrics["best"].items()]
    )
    rows += [["paper's top1", cfg.expected.top1]] if cfg.expected.top1 is not None else []
    rows += [[k, metrics[k]] for k in ("epochs", "seconds", "images_per_second", "params", "device", "folder")]
    table = Table(f"{cfg.model.name} on {data.name}", ["metric", "value"], rows)
    return Report("tnt-vit train", [table], data=metrics, files=[weights])


@main.command("eval")
def evaluate(cfg: DictConfig) -> Report:
    """Measure a trained TNT on the test split of a data set."""
    from effkit.lightning import evaluate as test
    from effkit.report import Report, Table
    from tnt_vit.build import build_data_and_model, set_up

    set_up(cfg)
    data, model = build_data_and_model(cfg, fresh_head=False)
    metrics = test(cfg, model, data)
    notes = [] if cfg.model.pretrained else ["random weights: give model.pretrained=PATH"]
    table = Table(f"{cfg.model.name} on {data.name}, test", ["metric", "value"], [[k, v] for k, v in metrics.items()])
    return Report("tnt-vit eval", [table], data=metrics, lines=notes)


@main.command("predict", positional="images")
def predict(cfg: DictConfig) -> Report:
    """Name what is in pictures: the five most likely classes of each file."""
    from tnt_vit.build import build_model, set_up
    from tnt_vit.predict import predict_report

    device = set_up(cfg)
    model = build_model(cfg.model).to(device)
    options = _plain(cfg)
    return predict_report(
        model,
        options["images"],
        **{k: options[k] for k in ("class_names", "topk", "batch_size", "crop_pct")},
        pretrained=options["model"]["pretrained"],
    )


@main.command("bench")
def bench(cfg: DictConfig) -> Report:
    """Time ours against timm's TNT and DeiT on this machine, in one interleaved run."""
    from tnt_vit.bench import bench_report

    return bench_report(
        _variant(cfg.model.name),
        **{
            k: cfg[k]
            for k in ("mode", "compile", "compile_mode", "device", "precision", "threads", "min_rounds", "min_seconds")
        },
        batch_sizes=list(cfg.batch_sizes),
        providers=list(cfg.providers),
        csv=cfg.csv or run_dir() / "bench.csv",
    )


@main.command("summary")
def summary(cfg: DictConfig) -> Report:
    """Parameters and MACs of the variants beside the paper's."""
    from tnt_vit.summary import summary_report

    return summary_report(_plain(cfg.variants), layers_of=cfg.layers_of, depth=cfg.depth)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All rows of the paper's tables beside ours; claim=true also trains on digits."""
    from effkit.reproduce import paper_report
    from tnt_vit.rows import PAPER

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir())


@main.command("export")
def export(cfg: DictConfig) -> Report:
    """Write the model as ONNX or torch.export file and check it against torch."""
    from tnt_vit.build import build_model, set_up
    from tnt_vit.export import SUFFIXES, export_model

    set_up(cfg)
    model = build_model(cfg.model).eval()
    out = cfg.out or run_dir() / f"{_variant(cfg.model.name)}{SUFFIXES.get(cfg.to, '')}"
    options = {k: cfg[k] for k in ("batch", "optimize", "opset", "check")}
    return export_model(model, out, cfg.to, **options, pretrained=cfg.model.pretrained)


@main.command("convert")
def convert(cfg: DictConfig) -> Report:
    """Translate a checkpoint of any known layout to timm's names, as .safetensors or .pth."""
    from tnt_vit.convert import convert_checkpoint

    keys = ("src", "dst", "variant", "img_size", "num_heads", "inner_num_heads", "patch_size")
    return convert_checkpoint(**{k: _plain(cfg)[k] for k in keys})


@main.command("visualize", positional="images")
def visualize(cfg: DictConfig) -> Report:
    """Draw word maps, attention and feature maps as in the paper's Figures 3 to 7."""
    from tnt_vit.build import build_model, set_up
    from tnt_vit.visualize import visualize_report

    device = set_up(cfg)
    model = build_model(cfg.model).to(device).eval()
    options = _plain(cfg)
    keys = ("figures", "img_size", "feature_size", "blocks", "sentence", "word", "seed")
    return visualize_report(
        model,
        options["images"] or None,
        run_dir(),
        **{k: options[k] for k in keys},
        pretrained=options["model"]["pretrained"],
    )


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and which backends load here and why not."""
    from effkit.device import doctor_report

    return doctor_report()


def _variant(name: str) -> str:
    from tnt_vit.zoo import VARIANTS

    return name if name in VARIANTS else f"{name}_patch16_224"


def _plain(value: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


if __name__ == "__main__":
    main()
