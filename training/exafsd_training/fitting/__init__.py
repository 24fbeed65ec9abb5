"""From a structure to a trained and calibrated model in its folder."""
