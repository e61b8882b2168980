"""A plug-in for an NPU that does not exist: its table, its compiler, its simulator, the runtime of both processors."""
