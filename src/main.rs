//! The `fantail` command.

fn main() {}
