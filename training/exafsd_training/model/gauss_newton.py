"""The EXAFS equation as the last layer of a network: one Gauss-Newton step from its answer.

The network's theta and covariance are where the step begins and how far it may go, and the
spectrum pulls at them through the derivatives of the paths. The covariance of the answer comes out
of the same equations. Trained through by the likelihood, the network learns to say what the step
does not, and how far a spectrum is to be believed.
"""

import numpy as np
import tensorflow as tf

from exafsd_training.model.dense import Dense

#: Factor by which the network's covariance is wider at first: it has read the same spectrum.
WIDER = 2.0
#: Logarithm of what a spectrum counts at first.
LOG_WEIGHT = -1.0


class GaussNewton(tf.Module):
    """One step; what goes into it is trained.

    Parameters
    ----------
    rng
        Source of the first weights.
    width
        Of the encoding.
    unit
        (p,) what Cholesky factors are in units of.
    """

    def __init__(self, rng: np.random.Generator, width: int, unit: tf.Tensor) -> None:
        super().__init__()
        self.unit = unit
        self.to_weight = Dense(rng, width, 1, gain=0.1)
        p = int(unit.shape[0])
        self.log_wider = tf.Variable(tf.fill((p,), float(np.log(WIDER))), name="log_wider")
        self.log_scale = tf.Variable(tf.zeros(p), name="log_scale")

    def __call__(
        self,
        z: tf.Tensor,
        theta: tf.Tensor,
        cholesky: tf.Tensor,
        pull: tf.Tensor,
        curvature: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Theta (b, p) and Cholesky factor (b, p, p) after the step.

        Parameters
        ----------
        z
            (b, width) encoding.
        theta, cholesky
            (b, p) and (b, p, p) of the network.
        pull, curvature
            (b, p) and (b, p, p) of `exafsd_training.model.path_misfit.PathMisfit` at theta.
        """
        weight = tf.exp(self.to_weight(z) + LOG_WEIGHT)
        wide = cholesky * tf.exp(self.log_wider)[:, tf.newaxis]
        eye = tf.eye(theta.shape[1], batch_shape=[tf.shape(theta)[0]])
        inverse = tf.linalg.triangular_solve(wide, eye)
        information = weight[..., tf.newaxis] * curvature
        information += tf.matmul(inverse, inverse, transpose_a=True)
        right = tf.concat([(weight * pull)[..., tf.newaxis], eye], -1)
        solved = tf.linalg.cholesky_solve(tf.linalg.cholesky(information), right)
        covariance = solved[..., 1:] + 1e-9 * eye  # of float32
        scale = tf.exp(self.log_scale)[:, tf.newaxis]
        return theta + solved[..., 0] * self.unit, scale * tf.linalg.cholesky(covariance)
