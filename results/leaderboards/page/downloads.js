const GAMMABENCH_FILES = {"models.parquet":"95561636e0339e65","cells.parquet":"95561636e0339e65"};
