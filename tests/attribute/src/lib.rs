//! The attribute `#[test]` of the whole-VM tests. It shadows the compiler's own, whose tests can
//! only pass or fail: a test that lacks something here (KVM, strace, root) has to be counted as
//! ignored, which it finds out only when it runs.
//!
//! The attribute puts the function on the list that `tests/common/harness.rs` runs.

use proc_macro::{TokenStream, TokenTree};

/// Marks a function without parameters as a test, as the compiler's attribute does.
#[proc_macro_attribute]
pub fn test(_: TokenStream, item: TokenStream) -> TokenStream {
    let registration = match name(item.clone()) {
        Some(name) => format!(
            "::inventory::submit! {{ crate::common::harness::Test {{ \
                name: ::core::concat!(::core::module_path!(), \"::{name}\"), run: {name} \
            }} }}"
        ),
        None => "::core::compile_error!(\"#[test] is for functions\");".to_owned(),
    };
    let registration: TokenStream = registration.parse().unwrap_or_default();
    [item, registration].into_iter().collect()
}

/// The name of the function that `item` is.
fn name(item: TokenStream) -> Option<String> {
    let mut words = item.into_iter().filter_map(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    });
    words.find(|word| word == "fn").and_then(|_| words.next())
}
