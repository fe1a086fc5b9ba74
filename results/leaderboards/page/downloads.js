const GAMMABENCH_FILES = {"models.parquet":"61c3177698aa8164","cells.parquet":"61c3177698aa8164"};
