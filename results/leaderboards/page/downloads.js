const GAMMABENCH_FILES = {"models.parquet":"b00c158ce36d6c83","cells.parquet":"b00c158ce36d6c83"};
