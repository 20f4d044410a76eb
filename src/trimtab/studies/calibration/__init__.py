"""Calibration before and after alignment."""
