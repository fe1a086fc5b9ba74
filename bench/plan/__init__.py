"""What a run consists of: the protocol, the blocks of work, and the memory they take."""
