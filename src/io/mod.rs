//! The driver: the only code that makes socket system calls.
