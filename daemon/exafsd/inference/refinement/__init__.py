"""The least-squares fit that starts from the network's answer."""
