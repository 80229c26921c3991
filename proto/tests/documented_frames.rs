//! The frames that docs/guest.md shows byte for byte are those that the two sides exchange.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use guest_protocol::{
    DeviceConfig, HEADER_LEN, MAX_MESSAGE_LEN, Message, VmmConfig, complete_message, encode_framed,
};

/// The bytes in the document behind the line that begins with `title`: pairs of hexadecimal digits,
/// each line with its meaning behind a semicolon, up to an empty line.
fn documented(title: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guest.md");
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with(title));
    let dump = lines
        .skip_while(|line| !line.contains(';'))
        .take_while(|line| line.contains(';'));
    dump.flat_map(|line| {
        let bytes = line.split(';').next().unwrap();
        let bytes = bytes.split_whitespace();
        bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap())
    })
    .collect()
}

fn frame<M: Message>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN + MAX_MESSAGE_LEN];
    let len = encode_framed(message, &mut frame).unwrap();
    frame.truncate(len);
    frame
}

#[test]
fn the_configuration_in_the_document_is_what_the_vmm_sends() {
    let device = |name: &str| DeviceConfig {
        name: name.to_string(),
        sector_size: 512,
    };
    let message = VmmConfig {
        devices: vec![device("input"), device("output")],
        request_size: 131_072,
        ..VmmConfig::default()
    };
    assert_eq!(documented("The configuration"), frame(&message));
}

#[test]
fn the_completion_in_the_document_is_what_a_guest_sends() {
    let message = complete_message("copy", 50, true);
    assert_eq!(documented("The completion"), frame(&message));
}
