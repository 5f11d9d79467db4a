"""Tools for the code itself: documents made from it, checks of it, one function run alone."""
