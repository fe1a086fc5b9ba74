const GAMMABENCH_FILES = {"models.parquet":"3a37ef8d22212918","cells.parquet":"3a37ef8d22212918"};
