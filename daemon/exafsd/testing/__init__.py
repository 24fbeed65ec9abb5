"""A simulated beamline that speaks the real protocols, for the demo and for tests."""
