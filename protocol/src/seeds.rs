//! The seeds of the fuzz targets, so far as the tests of this crate know how to write them.
//!
//! `WRITE_SEEDS=1 cargo test -p protocol seeds_of_the_fuzz` writes them; without it the tests compare. Bytes in front choose
//! what is done with the rest, as each target's head says.

use std::{env, fs, path::Path};

/// Sees that this is the seed of that name, or makes it so.
pub(crate) fn check(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let path = directory.join(name);
    if env::var_os("WRITE_SEEDS").is_some() {
        fs::create_dir_all(directory).expect("a directory");
        fs::write(&path, bytes).expect("a file");
    }
    let seed = fs::read(&path).unwrap_or_default();
    assert!(seed == bytes, "{} is not current: run with WRITE_SEEDS=1", path.display());
}
