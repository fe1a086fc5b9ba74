const GAMMABENCH_FILES = {"models.parquet":"4e9d929a3cb533fd","cells.parquet":"4e9d929a3cb533fd"};
