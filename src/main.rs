//! The `fantail` command.

use std::process::ExitCode;

/// Memory of a crowd that has left goes back to the system within seconds. The C library's allocator returns what lies at the
/// end of its heaps only, so one small block kept by a worker can hold the megabytes before it for good; this one returns any
/// unused page, on a thread of its own, so that no worker waits for it. Programs that embed the library bring their own.
///
/// After how long is said where it is compiled: one second in `.cargo/config.toml`. Cargo reads that file in a checkout only; what
/// `cargo install --git` builds keeps unused pages for the allocator's own default, ten seconds, because the call that would set it
/// here is `unsafe`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fantail::cli::main()
}
