//! Links the program as a guest, with the C library for deflate.

use std::env;

fn main() {
    guest_link::program();
    // What libdeflate-sys has built: see the manifest.
    if let Ok(root) = env::var("DEP_LIBDEFLATE_ROOT") {
        println!("cargo::rustc-link-search=native={root}/lib");
        println!("cargo::rustc-link-lib=static=deflate");
    }
}
