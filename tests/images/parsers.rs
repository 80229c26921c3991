//! The VMM has no parser of images, and its guest no decompressor.

use crate::common::test;
use std::process::Command;

/// The packages that `package` links, or that make it.
fn dependencies(manifest: &str, package: &str) -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix",
            "none",
            "--edges",
            "normal,build",
        ])
        .args(["--manifest-path", manifest, "--package", package])
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_vmm_links_no_parser_of_images() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let found = dependencies(manifest, "vmm");
    assert!(
        found.iter().any(|name| name == "guest-protocol"),
        "{found:?}"
    );
    assert!(
        found.iter().all(|name| name != "guest-formats"),
        "{found:?}"
    );
}

#[test]
fn the_guest_that_looks_into_images_links_no_decompressor() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/Cargo.toml");
    let found = dependencies(manifest, "guest-inspect");
    assert!(
        found.iter().any(|name| name == "guest-formats"),
        "{found:?}"
    );
    let codecs = [
        "flate", "inflate", "miniz", "zlib", "zstd", "lz4", "lzma", "xz", "bzip",
    ];
    let codec = found
        .iter()
        .find(|name| codecs.iter().any(|codec| name.contains(codec)));
    assert_eq!(codec, None);
}
