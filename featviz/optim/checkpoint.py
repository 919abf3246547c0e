"""Where a run stood, so that another can go on from there."""

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
    """The free parameters, the optimizer's state and the number of steps done."""

    state: dict[str, Tensor]
    optimizer: dict[str, Any]
    done: int

    @classmethod
    def of(cls, state: State, optimizer: torch.optim.Optimizer, done: int) -> Checkpoint:
        """Describe a run as it stands, on the CPU."""
        kept = {name: t.detach().cpu().clone() for name, t in state.items()}
        return cls(kept, _cpu(optimizer.state_dict()), done)

    def restore_(self, state: State) -> None:
        """Copy the free parameters into ``state``.

        Raises
        ------
        FeatvizError
            If they are those of another parameterization, size or batch.
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
        """Write the checkpoint, whole or not at all; :meth:`load` reads it as plain tensors."""
        buffer = io.BytesIO()
        torch.save(dataclasses.asdict(self), buffer)
        return write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FeatvizError
            If the file is missing or holds anything but tensors and numbers.
        """
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            return cls(found["state"], found["optimizer"], found["done"])
        except pickle.UnpicklingError:
            raise FeatvizError(
                f"{str(path)!r} holds more than plain tensors: it is not read"
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
