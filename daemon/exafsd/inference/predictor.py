"""The network as ONNX through onnxruntime: one thread, no spinning."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from exafsd.contract.card import CARD_SCHEMA, Card
from exafsd.contract.grid import K_SIZE
from exafsd.spectra import Prediction

OUTPUTS = ("theta", "theta_cov", "chi_k2_pred", "chi_k2_exafs", "ood")


def session(path: Path) -> onnxruntime.InferenceSession:
    """Session of a graph that leaves the other core to the reduction."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # spinning threads slow their neighbours more than they win here
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Predictor:
    """Runs ``pinn.onnx`` of one bundle.

    Raises
    ------
    ValueError
        If the graph is not the one its card describes.
    """

    def __init__(self, path: Path, card: Card) -> None:
        self._session = session(path)
        told = self._session.get_modelmeta().custom_metadata_map
        if told.get("card_schema") != CARD_SCHEMA or told.get("bundle") != card.name:
            said = f"{told.get('bundle')!r} of {told.get('card_schema')!r}"
            raise ValueError(
                f"the graph says it is {said}, its card {card.name!r} of {CARD_SCHEMA!r}"
            )
        names = {output.name: output.shape for output in self._session.get_outputs()}
        missing = [name for name in OUTPUTS if name not in names]
        if missing:
            raise ValueError(f"the graph has no output {missing}")
        if names["theta"][-1] not in (len(card.parameters), None):
            raise ValueError(
                f"the graph gives {names['theta'][-1]} parameters, its card has"
                f" {len(card.parameters)}"
            )

    def predict(
        self, chi_k2: NDArray[np.float32], mask: NDArray[np.float32]
    ) -> list[Prediction]:
        """Read a batch.

        Parameters
        ----------
        chi_k2, mask
            (batch, 401) float32, as made by `exafsd.contract.to_grid`.
        """
        if chi_k2.shape != mask.shape or chi_k2.shape[1:] != (K_SIZE,):
            raise ValueError(f"shapes {chi_k2.shape} and {mask.shape} are not (batch, {K_SIZE})")
        rows = self._session.run(list(OUTPUTS), {"chi_k2": chi_k2, "mask": mask})
        theta, cov, pred, exafs, ood = (np.asarray(array, dtype=float) for array in rows)
        return [
            Prediction(theta[i], cov[i], pred[i], exafs[i], float(ood[i]))
            for i in range(len(theta))
        ]
