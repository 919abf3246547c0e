"""Checkpoints of a run, from which it can be resumed."""

from __future__ import annotations

import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.io.files import write_bytes
from featviz.types import State, Tensor


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
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            return cls(saved["state"], saved["optimizer"], saved["done"])
        except pickle.UnpicklingError:
            raise FeatvizError(
                f"{str(path)!r} contains more than plain tensors and is not loaded"
            ) from None
        except (OSError, RuntimeError, EOFError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise FeatvizError(f"cannot read checkpoint {str(path)!r}: {reason}") from error


def _cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {k: _cpu(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_cpu(v) for v in value]
    return value
