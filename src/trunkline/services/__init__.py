"""Use-cases, one file each: what every face of Trunkline, command line or API, calls alike."""
