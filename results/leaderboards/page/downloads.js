const GAMMABENCH_FILES = {"models.parquet":"9b2b78bf3731f322","cells.parquet":"9b2b78bf3731f322"};
