"""Inputs as nobody should write them: kept sets, made by code in seconds."""
