"""Rank correlations beside seed noise and beside counting; by share of the best; and over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined
from ws_nas.meters.ranking import RankingGap

__all__ = ["draw_taus", "draw_taus_by_epoch", "draw_top"]


def draw_taus(rankings: Mapping[str, RankingGap], path: Path, title: str) -> Path:
    """A bar a score, with its interval; lines at the noise ceiling and the baselines, which all share.

    Args:
        rankings: By name, all of the same architectures and truth.
        path: PNG file to write.
        title: Of the picture.
    """
    first = next(iter(rankings.values()))
    with figure(6.5, 1.6 + 0.42 * len(rankings)) as fig:
        ax = fig.subplots()
        for row, m2 in enumerate(rankings.values()):
            low, high = m2.interval
            bars = [[m2.tau - low], [high - m2.tau]] if math.isfinite(low) else None
            ax.barh(row, m2.tau, xerr=bars, color=PLOT_COLOURS[0], height=0.6, capsize=3)
        ax.set_yticks(range(len(rankings)), list(rankings), fontsize=8)
        ax.invert_yaxis()
        lines = {} if first.ceiling is None else {"noise ceiling": first.ceiling}
        lines |= {f"counting {name}": tau for name, tau in first.baselines.items()}
        for i, (name, tau) in enumerate(lines.items()):
            style = "-" if name == "noise ceiling" else "--"
            ax.axvline(tau, color=PLOT_COLOURS[1 + i], linestyle=style, label=f"{name} {tau:.3f}")
        ax.set_xlabel("tau-b with stand-alone accuracy, 95 % intervals over architectures")
        ax.set_title(title)
        fig.legend(loc="outside lower center", ncols=3, fontsize=8)
        said = [f"{name} {m2.tau:.3f} [{m2.interval[0]:.3f}, {m2.interval[1]:.3f}]" for name, m2 in rankings.items()]
        held = joined([f"{name} {tau:.3f}" for name, tau in lines.items()])
        describe(fig, f"Bars of tau-b with stand-alone accuracy: {joined(said, most=12)}; lines at {held}.")
        return save_png(fig, path)


def draw_top(rankings: Mapping[str, RankingGap], path: Path, title: str) -> Path:
    """Tau-b among all and among the best by truth, a line a score; shares with too few architectures are left out.

    Args:
        rankings: By name.
        path: PNG file to write.
        title: Of the picture.
    """
    said = []
    with figure(5.6, 3.6) as fig:
        ax = fig.subplots()
        shares = ["100 %", *next(iter(rankings.values())).top]
        for i, (name, m2) in enumerate(rankings.items()):
            taus = {"100 %": m2.tau, **{share: tau for share, tau in m2.top.items() if tau is not None}}
            places = [shares.index(share) for share in taus]
            ax.plot(places, list(taus.values()), "o-", color=PLOT_COLOURS[i % len(PLOT_COLOURS)], label=name)
            said.append(f"{name} " + ", ".join(f"{tau:.3f} at {share}" for share, tau in taus.items()))
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(shares)), shares)
        ax.set_xlabel("best architectures by truth")
        ax.set_ylabel("tau-b among them")
        ax.set_title(title)
        fig.legend(loc="outside lower center", ncols=2, fontsize=8)
        describe(fig, f"Lines of tau-b among the best architectures by truth: {joined(said)}.")
        return save_png(fig, path)


def draw_taus_by_epoch(taus: Mapping[str, Mapping[int, float]], path: Path, title: str) -> Path:
    """Tau-b of supernets as they train, a line each.

    Args:
        taus: By name, and by the epochs that were done.
        path: PNG file to write.
        title: Of the picture.
    """
    from matplotlib.ticker import MaxNLocator

    with figure(5.6, 3.6 + 0.12 * len(taus)) as fig:
        ax = fig.subplots()
        said = []
        for i, (name, values) in enumerate(taus.items()):
            line, colour = ("-", "--", ":")[i // 8 % 3], PLOT_COLOURS[i % len(PLOT_COLOURS)]
            ax.plot(list(values), list(values.values()), "o", linestyle=line, color=colour, markersize=4, label=name)
            first, last = min(values), max(values)
            said.append(f"{name} from {values[first]:.3f} after {first} to {values[last]:.3f} after {last}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("epochs of the supernet")
        ax.set_ylabel("tau-b with stand-alone accuracy")
        ax.set_title(title)
        fig.legend(loc="outside lower center", ncols=3, fontsize=8)
        describe(fig, f"Lines of tau-b over the epochs of supernets: {joined(said, most=20)}.")
        return save_png(fig, path)
