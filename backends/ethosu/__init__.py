"""Arm Ethos-U: an int8 TFLite flatbuffer of our own, compiled by Vela, executed by LiteRT."""
