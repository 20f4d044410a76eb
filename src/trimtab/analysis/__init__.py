"""Statistics and pictures over plain rows: no disk, no network, no clock, no global random state."""
