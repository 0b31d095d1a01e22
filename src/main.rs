//! The process: everything else is the library's.

/// musl's own allocator is several times slower across threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    kafka_sidecar::run()
}
