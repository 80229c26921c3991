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

/// What the name of a crate has in it that reads images, or that inflates what is in them.
const PARSERS: [&str; 9] = [
    "guest-formats",
    "guest-inspect",
    "guest-convert",
    "qcow",
    "vmdk",
    "vhd",
    "vdi",
    "imago",
    "disk-image",
];
const CODECS: [&str; 10] = [
    "flate", "inflate", "miniz", "zlib", "zstd", "zune", "lz4", "lzma", "xz", "bzip",
];

/// The first package whose name has one of `parts` in it.
fn first<'a>(packages: &'a [String], parts: &[&str]) -> Option<&'a str> {
    let has = |name: &&String| parts.iter().any(|part| name.contains(part));
    packages.iter().find(has).map(String::as_str)
}

const VMM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/Cargo.toml");

#[test]
fn the_vmm_links_no_parser_of_images() {
    let found = dependencies(VMM, "vmm");
    assert!(
        found.iter().any(|name| name == "guest-protocol"),
        "{found:?}"
    );
    assert_eq!(first(&found, &PARSERS), None);
    assert_eq!(first(&found, &CODECS), None);
}

#[test]
fn the_guest_that_looks_into_images_links_no_decompressor() {
    let found = dependencies(GUEST, "guest-inspect");
    assert_eq!(first(&found, &CODECS), None);
}

#[test]
fn parsers_and_decompressors_are_seen_where_they_are() {
    let inspect = dependencies(GUEST, "guest-inspect");
    assert!(first(&inspect, &PARSERS).is_some(), "{inspect:?}");
    assert!(inspect.iter().any(|name| name == "guest-formats"));
    let convert = dependencies(GUEST, "guest-convert");
    for codec in ["flate", "zstd"] {
        assert!(first(&convert, &[codec]).is_some(), "{convert:?}");
    }
}
