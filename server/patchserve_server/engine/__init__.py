"""PatchCore: backbone, memory bank, search, scores and calibration. The only layer that knows torch and OpenVINO."""
