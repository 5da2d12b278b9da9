"""Exits: criteria, exit packs and their calibrations."""
