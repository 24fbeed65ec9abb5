"""A layer of a network."""

import numpy as np
import tensorflow as tf


class Dense(tf.Module):
    """x @ w + b, with Glorot's normal initialisation."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, gain: float = 1.0):
        super().__init__()
        std = gain * np.sqrt(2 / (inputs + outputs))
        self.w = tf.Variable(rng.normal(0, std, (inputs, outputs)), dtype=tf.float32)
        self.b = tf.Variable(tf.zeros(outputs))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """(b, outputs) from (b, inputs)."""
        return x @ self.w + self.b
