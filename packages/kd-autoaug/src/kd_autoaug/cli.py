from effkit.cli import App
main = App("kd-autoaug", "kd_autoaug.configs", summary="KD for AutoAugment.")
