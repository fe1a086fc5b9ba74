const GAMMABENCH_FILES = {"models.parquet":"4c6b9775b53f807b","cells.parquet":"4c6b9775b53f807b"};
