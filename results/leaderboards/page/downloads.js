const GAMMABENCH_FILES = {"models.parquet":"67779597a64678cf","cells.parquet":"67779597a64678cf"};
