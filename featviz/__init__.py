"""Feature visualization for PyTorch: see what the units of a trained network respond to.

>>> import featviz as fv
>>> model = fv.load("efficientnet_lite0")
>>> result = fv.render(model, fv.channel("_blocks.10", 5), steps=256)  # doctest: +SKIP
>>> result.save("channel.png")  # doctest: +SKIP

An *objective* says what about the activations should be large, a *parameterization* draws the
image, *transforms* perturb it, and the loop in :mod:`featviz.optim.loop` climbs.

Names are imported when they are first used, so that ``featviz --help`` need not wait for torch;
``__init__.pyi`` lists them.
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _load(name)
    except AttributeError:
        from featviz.errors import did_you_mean
        from featviz.other_libraries import FUNCTIONS

        hint = f"; call {FUNCTIONS[name]}" if name in FUNCTIONS else did_you_mean(name, __all__)
        raise AttributeError(f"featviz has no {name!r}{hint}") from None
