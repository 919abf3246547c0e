"""The plot of Adebayo's cascade: how similar maps stay while a network loses its weights.

matplotlib draws it, which is no dependency of featviz.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

#: The panels and their methods, in the order of the colours.
PANELS = {
    "gradients": (
        "gradient", "input_x_gradient", "integrated_gradients", "smooth_grad_squared", "var_grad",
        "noise_grad", "fusion_grad", "guided_backprop", "deconvnet", "xrai",
    ),
    "activation maps and propagation": (
        "grad_cam", "cam", "grad_cam_plus_plus", "layer_cam", "guided_grad_cam", "full_grad",
        "lrp", "deep_taylor", "deep_lift",
    ),
    "perturbation": (
        "occlusion", "feature_ablation", "prediction_difference", "kernel_shap", "lime", "rise",
    ),
}  # fmt: skip
#: Least distance between labels, in units of the axis.
_APART = 0.052


def plot_cascade(rows: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw each method's similarity by the share of layers that are shuffled, and write it."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = {
        title: drawn
        for title, names in PANELS.items()
        if (drawn := [n for n in names if n in rows])
    }
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.9 * len(panels), 4.4), sharey=True, squeeze=False
    )
    colours = pyplot.get_cmap("tab10")
    for axis, (title, drawn) in zip(axes[0], panels.items(), strict=True):
        ends = {name: rows[name][-1] for name in drawn}
        places = _spread(ends)
        for k, name in enumerate(drawn):
            share = [100 * d / (len(rows[name]) - 1) for d in range(len(rows[name]))]
            axis.plot(share, rows[name], color=colours(k), linewidth=1.6, marker="o", markersize=3)
            axis.annotate(
                name.replace("_", " "), (100, ends[name]), (104, places[name]), va="center",
                color=colours(k), fontsize=8.5, annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": colours(k), "linewidth": 0.5},
            )  # fmt: skip
        axis.set_title(title, fontsize=10.5)
        axis.set_xlabel("% of the layers shuffled, from the output down", fontsize=9)
        axis.set_xlim(0, 100)
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("rank correlation with the trained network's map", fontsize=9)
    figure.tight_layout(w_pad=1)
    figure.savefig(path, dpi=110)


def _spread(ends: Mapping[str, float]) -> dict[str, float]:
    """Return where labels go so that none covers another: near the ends of their lines."""
    order = sorted(ends, key=ends.__getitem__)
    places = [ends[name] for name in order]
    for _ in range(200):
        for i in range(1, len(places)):
            lack = _APART - (places[i] - places[i - 1])
            if lack > 0:
                places[i - 1] -= lack / 2
                places[i] += lack / 2
    return dict(zip(order, places, strict=True))
