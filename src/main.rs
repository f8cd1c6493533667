//! The `fantail` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fantail::cli::main()
}
