"""The daemon at work: sessions, the loop around them, and the wiring of its parts."""
