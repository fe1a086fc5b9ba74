const GAMMABENCH_FILES = {"models.parquet":"9a5089d6af03ebf5","cells.parquet":"9a5089d6af03ebf5"};
