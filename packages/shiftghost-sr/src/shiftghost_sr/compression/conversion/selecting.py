"""Which filters of a layer stay, and which of them each other one is taken from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from effkit.errors import choose
from shiftghost_sr.ops.shift import Direction

__all__ = ["SELECT", "SOURCES", "Selection", "cluster", "match", "select_filters"]

SELECT = ("kmeans", "kmedoids", "l2", "random", "first")
SOURCES = ("cluster", "slot", "match")
_STARTS, _ITERATIONS = 5, 100


@dataclass(frozen=True)
class Selection:
    """What was chosen for a layer.

    Args:
        intrinsic: Channels that stay, in order.
        ghosts: The others, in order.
        source: Place among ``intrinsic`` of each ghost.
        error: Squared distance of the ghosts' filters from their sources', over the sum of all filters' squares.
        sizes: Filters of each cluster, in the order of ``intrinsic``.
    """

    intrinsic: list[int]
    ghosts: list[int]
    source: list[int]
    error: float
    sizes: list[int]


def _distances(filters: np.ndarray, medoids: np.ndarray) -> np.ndarray:
    """Squared distances ``(filters, medoids)``, from differences, so that equal filters are at exactly zero."""
    return np.stack([((filters - filters[m]) ** 2).sum(axis=1) for m in medoids], axis=1)


def _medoids(filters: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> list[int]:
    """The member nearest to each cluster's centre; the lowest index of those that are equally near."""
    found = []
    for label in sorted(set(labels.tolist())):
        members = np.flatnonzero(labels == label)
        found.append(int(members[((filters[members] - centres[label]) ** 2).sum(axis=1).argmin()]))
    return found


def _filled(filters: np.ndarray, medoids: list[int], number: int) -> list[int]:
    """As many as were asked for: where clusters stayed empty, the filters farthest from all that are there."""
    found = list(dict.fromkeys(medoids))[:number]
    nearest = _distances(filters, np.array(found)).min(axis=1) if found else np.full(len(filters), np.inf)
    nearest[found] = -1.0
    while len(found) < number:
        found.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((filters - filters[found[-1]]) ** 2).sum(axis=1))
        nearest[found] = -1.0
    return sorted(found)


def cluster(filters: np.ndarray, number: int, seed: int) -> list[int]:
    """Medoids of k-means clusters: k-means++, five starts, at most a hundred iterations.

    Args:
        filters: ``(n, features)`` in float64.
        number: Clusters.
        seed: Of the starts; equal ones give equal sets, on any number of threads.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # of fewer distinct filters than clusters, which is seen to below
        found = KMeans(number, n_init=_STARTS, max_iter=_ITERATIONS, random_state=seed).fit(filters)
    return _filled(filters, _medoids(filters, found.labels_, found.cluster_centers_), number)


def _k_medoids(filters: np.ndarray, number: int, seed: int) -> list[int]:
    medoids = cluster(filters, number, seed)
    for _ in range(_ITERATIONS):
        labels = _distances(filters, np.array(medoids)).argmin(axis=1)
        moved = []
        for label in range(number):
            members = np.flatnonzero(labels == label)
            inside = _distances(filters[members], np.arange(len(members))).sum(axis=0)
            moved.append(int(members[inside.argmin()]) if len(members) else medoids[label])
        moved = _filled(filters, sorted(moved), number)
        if moved == medoids:
            break
        medoids = moved
    return medoids


def select_filters(filters: np.ndarray, number: int, select: str = "kmeans", source: str = "cluster", seed: int = 0,
                   groups: int = 1) -> Selection:  # fmt: skip
    """Choose the filters that stay.

    Args:
        filters: ``(channels, features)``.
        number: How many stay; divisible by ``groups``.
        select: ``kmeans``; ``kmedoids``; ``l2`` (the largest); ``random``; or ``first``.
        source: ``slot`` (ghost k from filter k, round and round), otherwise the nearest filter that stays.
        seed: Of anything drawn.
        groups: Of the convolution: choices stay inside each.
    """
    choose("select", select, SELECT)
    choose("source", source, SOURCES)
    filters = np.asarray(filters, dtype=np.float64)
    size, each = len(filters) // groups, number // groups
    intrinsic: list[int] = []
    for group in range(groups):
        own = filters[group * size : (group + 1) * size]
        if each == size:
            chosen = list(range(size))
        elif select == "kmeans":
            chosen = cluster(own, each, seed)
        elif select == "kmedoids":
            chosen = _k_medoids(own, each, seed)
        elif select == "l2":
            chosen = sorted(np.argsort(-(own**2).sum(axis=1), kind="stable")[:each].tolist())
        elif select == "random":
            chosen = sorted(np.random.default_rng([seed, group]).permutation(size)[:each].tolist())
        else:
            chosen = list(range(each))
        intrinsic += [group * size + c for c in chosen]
    ghosts = [c for c in range(len(filters)) if c not in set(intrinsic)]
    places, sizes = [], [1] * number
    for j, ghost in enumerate(ghosts):
        group = ghost // size
        candidates = np.arange(group * each, (group + 1) * each)
        if source == "slot":
            turn = j % (size - each)
            place = int(candidates[turn % each])
        else:
            distance = _distances(filters[[ghost, *[intrinsic[c] for c in candidates]]], np.array([0]))[1:, 0]
            place = int(candidates[distance.argmin()])
        places.append(place)
        sizes[place] += 1
    whole = float((filters**2).sum())
    lost = sum(float(((filters[g] - filters[intrinsic[p]]) ** 2).sum()) for g, p in zip(ghosts, places, strict=True))
    return Selection(intrinsic, ghosts, places, lost / whole if whole else 0.0, sizes)


def match(weight: np.ndarray, intrinsic: list[int], ghosts: list[int], directions: tuple[Direction, ...],
          groups: int = 1) -> tuple[list[int], Direction, float]:  # fmt: skip
    """Source of each ghost and one direction for all, where a moved filter is nearest to the ghost's.

    A map read at ``v`` is the output of its filter moved by ``v``, so both are laid into a window that holds either.

    Args:
        weight: ``(channels, inputs, k, k)``.
        intrinsic: Channels that stay.
        ghosts: The others.
        directions: That are allowed.
        groups: Of the convolution.

    Returns:
        Places among ``intrinsic``, the direction, and the ghosts' squared error over the sum of all filters' squares.
    """
    weight = np.asarray(weight, dtype=np.float64)
    d, k = max(max(abs(a), abs(b)) for a, b in directions), weight.shape[-1]
    total, each, size = float((weight**2).sum()), len(intrinsic) // groups, len(weight) // groups

    def laid(filters: np.ndarray, v: Direction) -> np.ndarray:
        window = np.zeros((*filters.shape[:2], k + 2 * d, k + 2 * d))
        window[:, :, d + v[0] : d + v[0] + k, d + v[1] : d + v[1] + k] = filters
        return window.reshape(len(filters), -1)

    best: tuple[float, list[int], Direction] | None = None
    still = laid(weight[ghosts], (0, 0))
    for v in sorted(directions, key=lambda v: (v[0] ** 2 + v[1] ** 2, v)):
        moved = laid(weight[intrinsic], v)
        places, error = [], 0.0
        for ghost, own in zip(ghosts, still, strict=True):
            first = ghost // size * each
            distance = ((moved[first : first + each] - own) ** 2).sum(axis=1)
            places.append(first + int(distance.argmin()))
            error += float(distance.min())
        if best is None or error < best[0]:
            best = (error, places, v)
    assert best is not None
    return best[1], best[2], best[0] / total if total else 0.0
