const GAMMABENCH_FILES = {"models.parquet":"3b7d64ba1a76bd12","cells.parquet":"3b7d64ba1a76bd12"};
