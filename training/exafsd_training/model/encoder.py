"""What the networks of all crystals have in common: the encoder.

Spectra of two crystals have other waves, but what temperature and strain do to the wave of a shell
is the same. So a spectrum is first compared with the crystal's own waves (`shell_coordinates`), and
what comes of it enters layers that are equal for all crystals. The comparison is linear: together
with the first of these layers it is one layer of an ordinary network, which is then trained further
as a whole (`Encoder.start`).
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.model.dense import Dense
from exafsd_training.model.network import MASK_BINS, Pinn, Sizes, coarse
from exafsd_training.simulation.simulate import K_END, K_MIN
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats
from exafsd_training.theory.shells import MAX_SHELLS

#: Middles of the stretches of k in which waves are compared, 1/angstrom; each is a triangle that
#: ends at the middles of its neighbours.
STRETCH = 0.5
STRETCHES = np.arange(K_MIN, K_END[1] + STRETCH / 2, STRETCH)
#: Waves that spectra are compared with have these sigma2 (angstrom^2), E0 (eV) and N S0^2 over N,
#: which are equal for all crystals, and the crystal's distances.
USUAL_SIGMA2, USUAL_E0, USUAL_N = 0.006, 4.0, 0.75
#: Added to the power of a wave in a stretch, which is about 10 where the wave is strong: where it
#: is weak, noise must not be taken for it.
WEAK = 2.0
#: Coordinates of a spectrum.
COORDINATES = MAX_SHELLS * 2 * len(STRETCHES)
#: Parameters by id without the phase.
IDS = ("e0_shift", "1/n_s02", "1/r", "1/sigma2", "1/c3",
       *(f"{n}/{name}" for n in range(2, MAX_SHELLS + 1) for name in ("r", "sigma2")),
       "expansion")  # fmt: skip
PAIRS = tuple((a, b) for a in IDS for b in IDS)
#: What a file is recognised by; an encoder with other coordinates or heads has another.
FORM = "exafsd.encoder/1"
#: The encoder that comes with exafsd-training, made by `exafsd-train encoder`.
SHIPPED = Path(__file__).with_name("encoder.npz")


class EncoderError(ValueError):
    """An encoder that a network cannot start from, with the reason."""


def shell_coordinates(parametrisation: Parametrisation, scale: Floats) -> Floats:
    """Matrix (401, `COORDINATES`): spectra in units of `scale` times it are in shells' coordinates.

    These are the real and the imaginary part of the factor by which the wave of every shell is
    changed, in every stretch of k, if the other shells were not there. A shell that is missing has
    zeros.

    Parameters
    ----------
    parametrisation
        Of the crystal.
    scale
        (401,) k^2 chi that counts as 1, 1/angstrom^2.
    """
    par = parametrisation
    usual = {"sigma2": USUAL_SIGMA2, "e0_shift": USUAL_E0, "n_s02": USUAL_N * par.degeneracy}
    theta = [p.r_eff or 0.0 if p.name == "r" else usual.get(p.name, 0.0) for p in par.parameters]
    pair, _ = Equation(par).waves_and_jacobian(tf.constant([theta], tf.float32))
    real, imag = (np.float64(x.numpy()[0].T) * (K_GRID**2 / scale)[:, None] for x in pair)
    triangles = np.clip(1 - np.abs(K_GRID[:, None] - STRETCHES) / STRETCH, 0, None)
    blocks = np.zeros((K_GRID.size, MAX_SHELLS, 2, len(STRETCHES)))
    for shell in par.shells:
        wave = [x[:, list(shell.paths)].sum(1) for x in (imag, real)]
        power = 0.5 * triangles.T @ (wave[0] ** 2 + wave[1] ** 2) + WEAK
        for part, own in enumerate(wave):
            blocks[:, shell.number - 1, part] = own[:, None] * triangles / power
    return blocks.reshape(K_GRID.size, COORDINATES)


class Encoder(tf.Module):
    """Layers from shells' coordinates to theta, its covariance, and coordinates without noise."""

    def __init__(self, sizes: Sizes, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        widths = [COORDINATES + MASK_BINS, *sizes.encoder]
        self.layers = [Dense(rng, a, b) for a, b in pairwise(widths)]
        self.to_theta = Dense(rng, widths[-1], len(IDS), gain=0.3)
        self.to_cholesky = Dense(rng, widths[-1], len(PAIRS), gain=0.1)
        self.to_clean = Dense(rng, widths[-1], COORDINATES)

    @property
    def widths(self) -> tuple[int, ...]:
        """Outputs of every layer."""
        return tuple(int(layer.b.shape[0]) for layer in self.layers)

    def encode(self, coordinates: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Encoding (b, width) of spectra in shells' coordinates and their masks (b, 401)."""
        z = tf.concat([coordinates, coarse(mask)], 1)
        for layer in self.layers:
            z = tf.tanh(layer(z))
        return z

    def start(self, model: Pinn, parametrisation: Parametrisation) -> None:
        """Set the layers of a new network, and its heads for theta and its covariance.

        Raises
        ------
        EncoderError
            If the network has layers of other sizes.
        """
        widths = tuple(int(layer.b.shape[0]) for layer in model.encoder)
        if widths != self.widths:
            raise EncoderError(
                f"the encoder has layers of {self.widths} and the network of {widths}: make an"
                " encoder of these sizes, or train from scratch"
            )
        waves, mask = np.split(self.layers[0].w.numpy(), [COORDINATES])
        own = shell_coordinates(parametrisation, model.scale.numpy().astype(float))
        model.encoder[0].w.assign(np.vstack([own @ waves, mask]))
        model.encoder[0].b.assign(self.layers[0].b)
        for layer, common in zip(model.encoder[1:], self.layers[1:], strict=True):
            layer.w.assign(common.w)
            layer.b.assign(common.b)
        heads = (model.to_theta, self.to_theta), (model.to_cholesky, self.to_cholesky)
        for (head, common), columns in zip(heads, head_columns(parametrisation), strict=True):
            head.w.assign(common.w.numpy()[:, columns])
            head.b.assign(common.b.numpy()[columns])

    def save(self, file: Path) -> None:
        """Write as npz."""
        arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(self.variables)}
        temporary = file.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, form=FORM, widths=self.widths, **arrays)
        temporary.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Encoder":
        """Read what `save` wrote.

        Raises
        ------
        EncoderError
            If the file is no encoder, or one of another version.
        """
        try:
            data = np.load(file)
        except (OSError, EOFError, ValueError) as error:
            raise EncoderError(f"{file}: {error}") from error
        with data:
            if "form" not in data or str(data["form"]) != FORM:
                raise EncoderError(f"{file} is no encoder of this version of exafsd-training")
            encoder = cls(Sizes(tuple(int(width) for width in data["widths"])))
            for i, variable in enumerate(encoder.variables):
                variable.assign(data[f"v{i}"])
        return encoder


def head_columns(parametrisation: Parametrisation) -> tuple[list[int], list[int]]:
    """Places of theta in `IDS`, and of its packed Cholesky factor in `PAIRS`."""
    ids = [parameter.id.partition("/")[2] for parameter in parametrisation.parameters]
    rows, columns = np.tril_indices(len(ids))
    pairs = [PAIRS.index((ids[i], ids[j])) for i, j in zip(rows, columns, strict=True)]
    return [IDS.index(id_) for id_ in ids], pairs
