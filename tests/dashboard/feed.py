"""Sweeps of a heated foil, sent document by document as a test wants them."""

import time
from dataclasses import replace

import numpy as np
from bluesky.callbacks.zmq import Publisher
from event_model import compose_run

from exafsd.codec import dumps
from exafsd.testing.devices import Pass, SweepDetector
from exafsd.testing.heating import HeatedFoil, cache_folder

POINTS = 500


class Feed:
    """A beamline whose next sweep is a call."""

    def __init__(self, into):
        self._publisher = Publisher(into, serializer=dumps)
        self._foil = HeatedFoil(cache_folder(), POINTS, (300.0, 500.0))
        self._device = SweepDetector(POINTS)
        self._rng = np.random.default_rng(1)
        self._run = self._stream = None
        self._scan = 0

    def start(self, sample="Cu foil"):
        """Begin a run; its uid."""
        self._scan += 1
        metadata = {"element": "Cu", "edge": "K", "sample": {"name": sample}}
        self._run = compose_run(metadata=metadata | {"scan_id": self._scan})
        self._publisher("start", self._run.start_doc)
        self._stream = None
        return self._run.start_doc["uid"]

    def sweep(self, kelvin=300.0, bad=False):
        """Measure once; a bad sweep has no counts in front of the sample."""
        if self._stream is None:
            self._stream = self._run.compose_descriptor(
                name="primary", data_keys=self._device.describe()
            )
            self._publisher("descriptor", self._stream.descriptor_doc)
        counts = self._foil.sweep(kelvin, "up", self._rng)
        if bad:
            counts = replace(counts, i0=np.zeros(POINTS))
        self._device.load(Pass.of(counts, time.time(), 1e-5))
        read = self._device.read()
        event = self._stream.compose_event(
            data={key: one["value"] for key, one in read.items()},
            timestamps={key: one["timestamp"] for key, one in read.items()},
        )
        self._publisher("event", event)

    def stop(self):
        """End the run."""
        self._publisher("stop", self._run.compose_stop())

    def close(self):
        """Close the socket."""
        self._publisher.close()
