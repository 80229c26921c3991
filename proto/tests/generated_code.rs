//! The checked-in code must be what the schema generates.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::{env, fs};

/// Set this in the environment to write the code instead of comparing it.
const UPDATE: &str = "UPDATE_GENERATED";

#[test]
#[cfg_attr(miri, ignore = "compiling a schema takes Miri hours")]
fn generated_code_matches_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["guest.proto"], [root]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let generated = fs::read_to_string(out.path().join("guest_protocol.rs")).unwrap();
    let checked_in = root.join("src/generated.rs");
    if env::var_os(UPDATE).is_some() {
        fs::write(&checked_in, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&checked_in).unwrap() == generated,
        "proto/src/generated.rs does not match proto/guest.proto; \
         run {UPDATE}=1 cargo test -p guest-protocol --test generated_code"
    );
}
