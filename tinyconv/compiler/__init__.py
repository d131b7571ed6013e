"""tinyconv.compile: record a training step once, rewrite it, plan its memory, and replay it."""

from tinyconv.compiler.step import CompiledStep, CompileError, compile

__all__ = ["CompileError", "CompiledStep", "compile"]
