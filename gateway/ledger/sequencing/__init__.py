"""Sequencing: who gives statements their place, for one process, many, or many machines."""
