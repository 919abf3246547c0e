"""Checkpoints of a run, from which it can be resumed."""

from __future__ import annotations

import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from featviz.errors import FeatvizError, shorten
from featviz.io.files import check_readable, write_bytes
from featviz.types import State, Tensor
from featviz.validation import MOST, whole


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The free parameters, the optimizer's state and the number of completed steps."""

    state: dict[str, Tensor]
    optimizer: dict[str, Any]
    done: int

    @classmethod
    def of(cls, state: State, optimizer: torch.optim.Optimizer, done: int) -> Checkpoint:
        """Return a checkpoint of the current state, copied to the CPU."""
        tensors = {name: t.detach().cpu().clone() for name, t in state.items()}
        return cls(tensors, _cpu(optimizer.state_dict()), done)

    def restore_(self, state: State) -> None:
        """Copy the saved free parameters into ``state``, in place.

        Raises
        ------
        FeatvizError
            If they belong to another parameterization, image size or batch size.
        """
        if self.state.keys() != state.keys():
            raise FeatvizError(
                f"checkpoint holds {sorted(self.state)}, but the run has {sorted(state)}"
            )
        with torch.no_grad():
            for name, tensor in state.items():
                if tensor.shape != self.state[name].shape:
                    raise FeatvizError(
                        f"checkpoint's {name} has shape {tuple(self.state[name].shape)}, "
                        f"but the run's {tuple(tensor.shape)}"
                    )
                tensor.copy_(self.state[name])

    def save(self, path: str | Path) -> Path:
        """Write the checkpoint atomically, as plain tensors that :meth:`load` reads."""
        buffer = io.BytesIO()
        torch.save(dataclasses.asdict(self), buffer)
        return write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint that :meth:`save` wrote.

        Raises
        ------
        FeatvizError
            If the file is missing or contains anything but tensors and numbers.
        """
        check_readable(path)
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            state, optimizer, done = saved["state"], saved["optimizer"], saved["done"]
        except pickle.UnpicklingError:
            raise FeatvizError(
                f"{str(path)!r} contains more than plain tensors and is not loaded"
            ) from None
        except Exception as error:  # a damaged pickle can fail in any way
            reason = shorten(f"{type(error).__name__}: {error}")
            raise FeatvizError(f"cannot read checkpoint {str(path)!r}: {reason}") from error
        tensors = isinstance(state, dict) and all(
            isinstance(name, str) and isinstance(t, Tensor) and bool(t.isfinite().all())
            for name, t in state.items()
        )
        if not tensors or not isinstance(optimizer, dict):
            raise FeatvizError(f"checkpoint {str(path)!r} is damaged: it is no state of a run")
        return cls(state, optimizer, whole("done", done, 0, MOST))

    def load_optimizer_(self, optimizer: torch.optim.Optimizer) -> None:
        """Copy the saved state into ``optimizer``, in place.

        Raises
        ------
        FeatvizError
            If it is another optimizer's, or has other settings than ``optimizer`` but for the
            learning rate, or is damaged.
        """
        own = optimizer.state_dict()["param_groups"]
        saved = self.optimizer.get("param_groups")
        groups = [g for g in saved if isinstance(g, dict)] if isinstance(saved, list) else []
        try:
            if [set(g) for g in groups] != [set(g) for g in own]:
                raise ValueError("its settings are others")
            for group, stored in zip(own, groups, strict=True):
                for name, value in group.items():
                    if name not in _FREE and value != stored[name]:
                        raise ValueError(f"it has {name} {stored[name]}, not {value}")
            optimizer.load_state_dict(self.optimizer)
        except Exception as error:  # of any optimizer, also the user's own
            raise FeatvizError(
                f"checkpoint does not fit the optimizer: {shorten(str(error))}"
            ) from error


#: Settings of an optimizer that a resumed run may have of its own: they change no result, or, as
#: the learning rate, are set in each step.
_FREE = {"params", "lr", "fused", "foreach", "capturable", "differentiable"}


def _cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {k: _cpu(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_cpu(v) for v in value]
    return value
